//! Bytes to headers.

mod layer3;
mod transport;
mod v4;
mod v6;
