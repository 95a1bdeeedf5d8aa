//! The control group of a process, and the container that it names.

use super::process::escape;

/// A path is shown up to this length.
const MOST_BYTES: usize = 512;
/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// What `/proc/<pid>/cgroup` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroup {
    /// The path, escaped.
    pub(super) path: Option<String>,
    /// The container's id.
    pub(super) container: Option<String>,
}

/// Reads the lines `<hierarchy>:<controllers>:<path>`.
///
/// Paths are relative to the reader's own group where it has a namespace for them: `/../../x`.
pub(super) fn read(text: &[u8]) -> Cgroup {
    let lines: Vec<(&[u8], &[u8])> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut parts = line.splitn(3, |byte| *byte == b':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            Some((controllers, from_root(path)))
        })
        .collect();
    let container = lines.iter().find_map(|(_, path)| container(path));
    // The unified hierarchy has no controllers in its line; on hosts of the old kind it may be
    // there and unused.
    let weight = |(controllers, path): &(&[u8], &[u8])| match *controllers {
        _ if *path == b"/" => 3,
        b"" => 0,
        b"name=systemd" => 1,
        _ => 2,
    };
    let path = lines.iter().min_by_key(|line| weight(line));
    Cgroup {
        path: path.map(|(_, path)| escape(path, MOST_BYTES)),
        container,
    }
}

fn from_root(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/..") {
        path = rest;
    }
    if path.is_empty() { b"/" } else { path }
}

/// The outermost container below the kubelet's group, or the outermost at all: what is inside may
/// be made by the container itself.
fn container(path: &[u8]) -> Option<String> {
    let mut below_kubelet = false;
    let mut first = None;
    for component in path.split(|byte| *byte == b'/') {
        below_kubelet |= component.windows(8).any(|window| window == b"kubepods");
        if let Some(id) = id(component) {
            if below_kubelet {
                return Some(id);
            }
            first = first.or(Some(id));
        }
    }
    first
}

/// The id in `cri-containerd-<id>.scope`, `docker-<id>.scope`, `crio-<id>.scope`, `<id>` or
/// `<slice>:cri-containerd:<id>`.
fn id(component: &[u8]) -> Option<String> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    let (runtime, id) = name.split_at_checked(name.len().checked_sub(ID_DIGITS)?)?;
    // Not a container but the process that watches it.
    let is_monitor = runtime.ends_with(b"conmon-");
    let is_apart = runtime.is_empty() || runtime.ends_with(b"-") || runtime.ends_with(b":");
    let is_id = id
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && is_apart && !is_monitor).then(|| String::from_utf8_lossy(id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(digit: char) -> String {
        digit.to_string().repeat(ID_DIGITS)
    }

    #[test]
    fn containers_of_all_runtimes() {
        let (a, b) = (id_of('a'), id_of('b'));
        let pod = "kubepods-burstable-pod0f1e.slice";
        for (path, expected) in [
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{a}.scope"
                ),
                Some(&a),
            ),
            (
                format!("0::/../../{pod}/cri-containerd-{a}.scope/init"),
                Some(&a),
            ),
            (format!("0::/kubepods/besteffort/pod0f1e/{a}"), Some(&a)),
            (
                format!("0::/system.slice/containerd.service/{pod}:cri-containerd:{a}"),
                Some(&a),
            ),
            (format!("0::/system.slice/docker-{a}.scope"), Some(&a)),
            (format!("4:memory:/docker/{a}\n0::/"), Some(&a)),
            (format!("0::/kubepods.slice/crio-{a}.scope"), Some(&a)),
            (format!("0::/kubepods.slice/crio-conmon-{a}.scope"), None),
            // A node that is a container itself, and a container that made a group of its own.
            (
                format!(
                    "0::/docker/{b}/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{a}.scope"
                ),
                Some(&a),
            ),
            (format!("0::/docker-{a}.scope/docker-{b}.scope"), Some(&a)),
            ("0::/system.slice/ssh.service".to_owned(), None),
            (format!("0::/x{a}"), None),
            (format!("0::/{}", "A".repeat(ID_DIGITS)), None),
        ] {
            let read = read(path.as_bytes());
            assert_eq!(read.container.as_ref(), expected, "{path}");
        }
    }

    #[test]
    fn the_path_is_of_the_hierarchy_in_use() {
        let path = |text: &str| read(text.as_bytes()).path;
        assert_eq!(
            path("0::/../../system.slice/ssh.service\n").as_deref(),
            Some("/system.slice/ssh.service")
        );
        assert_eq!(
            path("4:memory:/m\n1:name=systemd:/s\n0::/\n").as_deref(),
            Some("/s")
        );
        assert_eq!(path("9:name=systemd:/\n0::/\n").as_deref(), Some("/"));
        assert_eq!(path(""), None);
        assert_eq!(path("nonsense\n:\n"), None);
    }

    #[test]
    fn hostile_names_are_escaped_and_cut() {
        let text = format!("0::/a\x1b[2J\u{202e}:{}\n", "x".repeat(5000));
        let path = read(text.as_bytes()).path.expect("a path");
        assert!(path.starts_with("/a\\x1b[2J\\xe2\\x80\\xae:x"), "{path}");
        assert!(path.len() <= MOST_BYTES + 3 && path.ends_with("..."));
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
