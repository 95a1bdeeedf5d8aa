mod accounting;
mod fast;
mod fragments;
mod icmp;
mod inspect;
mod property;
mod ssh;
mod tcp;
