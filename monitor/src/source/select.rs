//! Which interfaces are watched, and from which vantage point. Pure.

use globset::{Glob, GlobSet, GlobSetBuilder};
use monitor_core::event::Point;

/// Name patterns of the host side of pod interfaces, as network plugins make them.
pub const WORKLOAD_PATTERNS: [&str; 5] = ["veth*", "azv*", "cali*", "lxc*", "eni*"];

/// The operator's choice of interfaces.
#[derive(Clone, Debug)]
pub struct Selection {
    uplinks: Vec<String>,
    workloads: GlobSet,
}

/// A workload pattern is not one.
#[derive(Debug, thiserror::Error)]
#[error("invalid interface pattern `{pattern}`: {source}")]
pub struct PatternError {
    pattern: String,
    #[source]
    source: globset::Error,
}

// === impl Selection ===

impl Selection {
    /// Without `uplinks`, the interfaces of the default routes are uplinks.
    pub fn new(uplinks: &[String], workloads: &[String]) -> Result<Self, PatternError> {
        let mut builder = GlobSetBuilder::new();
        let patterns = workloads;
        for pattern in patterns {
            let glob = Glob::new(pattern).map_err(|source| PatternError {
                pattern: pattern.clone(),
                source,
            })?;
            builder.add(glob);
        }
        let workloads = builder.build().map_err(|source| PatternError {
            pattern: patterns.join(" "),
            source,
        })?;
        Ok(Self {
            uplinks: uplinks.to_vec(),
            workloads,
        })
    }

    /// Names of uplinks that were asked for.
    pub fn uplinks(&self) -> &[String] {
        &self.uplinks
    }

    /// The vantage point of an interface, `None` if it is not watched.
    ///
    /// An uplink stays one even where its name looks like a workload's. Without uplinks by name,
    /// the interface of a default route is one: of a bond or of an accelerated Azure interface that
    /// is the upper device, which sees each packet once.
    pub fn point(&self, name: &str, has_default_route: bool) -> Option<Point> {
        let is_uplink = if self.uplinks.is_empty() {
            has_default_route
        } else {
            self.uplinks.iter().any(|uplink| uplink == name)
        };
        if is_uplink {
            Some(Point::Uplink)
        } else if self.workloads.is_match(name) {
            Some(Point::Workload)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uplinks: &[&str], name: &str, has_default_route: bool, expected: Option<Point>) {
        let uplinks: Vec<_> = uplinks.iter().map(ToString::to_string).collect();
        let workloads = WORKLOAD_PATTERNS.map(str::to_owned);
        let selection = Selection::new(&uplinks, &workloads).expect("valid patterns");
        assert_eq!(selection.point(name, has_default_route), expected, "{name}");
    }

    #[test]
    fn the_default_route_tells_the_uplink() {
        check(&[], "eth0", true, Some(Point::Uplink));
        check(&[], "eth1", false, None);
        check(&[], "veth0", true, Some(Point::Uplink));
    }

    #[test]
    fn named_uplinks_replace_the_default_route() {
        check(&["eth1"], "eth0", true, None);
        check(&["eth1"], "eth1", false, Some(Point::Uplink));
        check(&["eth1"], "vethab", true, Some(Point::Workload));
    }

    #[test]
    fn workloads_match_by_pattern() {
        for name in ["veth1a2b", "azv12", "cali0", "lxc_health", "eni7"] {
            check(&[], name, false, Some(Point::Workload));
        }
        for name in ["lo", "cni0", "docker0", "xveth0"] {
            check(&[], name, false, None);
        }
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Selection::new(&[], &["ve[th".to_owned()]).expect_err("unclosed class");
        assert!(error.to_string().contains("`ve[th`"), "{error}");
    }
}
