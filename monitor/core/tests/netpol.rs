//! The compiled evaluator against a deliberately simple one, over random clusters, policies and
//! flows, while all of them change.
//!
//! The simple evaluator shares the parsed model with the other and nothing else: it looks at every
//! policy for every question, keeps nothing, and answers with the set of all outcomes that are
//! possible where something is not known. Where nothing is unknown, both must be equal; where
//! something is, a definite verdict must be the only possible one.

mod netpol {
    mod compare;
    mod random;
    mod simple;
}
