//! What network policies mean, one test for each rule of `docs/networkpolicy.md`, from manifests to
//! verdicts.

mod networkpolicy {

    mod hosts;
    mod isolation;
    mod peers;
    mod ports;
    mod tiers;
    mod world;
}
