//! Captured sessions of real programs.
