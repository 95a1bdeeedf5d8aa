//! The control group of a process, and the container that it names.

use super::process::escape;

/// A path is shown up to this length.
pub(super) const MOST_BYTES: usize = 512;
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
pub(super) fn container(path: &[u8]) -> Option<String> {
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

/// `metadata.uid` of the pod that a group belongs to, or the hash of a static pod's manifest: of the
/// outermost group of a pod below the kubelet's, since what is inside may be made by the pod itself.
///
/// Names are those of the kubelet's drivers (`pkg/kubelet/cm`): `kubepods/burstable/pod<uid>`, and
/// `kubepods-burstable-pod<uid>.slice` with `_` for `-` below any number of slices.
pub(super) fn pod(path: &[u8]) -> Option<String> {
    let mut below_kubelet = false;
    for component in path.split(|byte| *byte == b'/') {
        let name = component.split(|byte| *byte == b':').next()?;
        let name = name.strip_suffix(b".slice").unwrap_or(name);
        let is_slice = name.windows(8).any(|window| window == b"kubepods");
        let uid = if is_slice {
            let at = name.windows(4).rposition(|window| window == b"-pod");
            at.and_then(|at| name.get(at + 4..))
        } else {
            name.strip_prefix(b"pod").filter(|_| below_kubelet)
        };
        if let Some(uid) = uid.and_then(uid_of) {
            return Some(uid);
        }
        below_kubelet |= is_slice;
    }
    None
}

/// A uid as the API has it, from the name of a group.
fn uid_of(name: &[u8]) -> Option<String> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    // The hash of a manifest.
    if name.len() == 32 && name.iter().all(is_digit) {
        return Some(String::from_utf8_lossy(name).into_owned());
    }
    let dashed: Vec<u8> = name
        .iter()
        .map(|byte| if *byte == b'_' { b'-' } else { *byte })
        .collect();
    let mut parts = dashed.split(|byte| *byte == b'-');
    let is_uid = [8, 4, 4, 4, 12].iter().all(|length| {
        let part = parts.next();
        part.is_some_and(|part| part.len() == *length && part.iter().all(is_digit))
    });
    (is_uid && parts.next().is_none()).then(|| String::from_utf8_lossy(&dashed).into_owned())
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
    fn pods_of_all_drivers() {
        let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let other = uid.replace('0', "1");
        let under = uid.replace('-', "_");
        let hash = "d".repeat(32);
        let id = id_of('a');
        let kubelet = format!("docker/{id}/kubelet.slice/kubelet-kubepods.slice");
        for (path, expected) in [
            (format!("/kubepods/burstable/pod{uid}/{id}"), Some(uid)),
            (format!("/kubepods/pod{uid}"), Some(uid)),
            (
                format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{id}.scope"),
                Some(uid),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{id}.scope/x"
                ),
                Some(uid),
            ),
            // A node that is a container itself.
            (
                format!("/{kubelet}/kubelet-kubepods-pod{under}.slice/x"),
                Some(uid),
            ),
            (
                format!("/system.slice/kubepods-pod{under}.slice:cri-containerd:{id}"),
                Some(uid),
            ),
            // A static pod.
            (format!("/kubepods/burstable/pod{hash}/{id}"), Some(&*hash)),
            // What a pod makes inside of itself names no other.
            (
                format!("/kubepods/pod{uid}/{id}/kubepods/pod{other}"),
                Some(uid),
            ),
            (format!("/docker/{id}"), None),
            (format!("/pod{uid}"), None),
            (format!("/user.slice/pod{uid}"), None),
            ("/kubepods.slice/kubepods-burstable.slice".to_owned(), None),
            (format!("/kubepods/pod{uid}0"), None),
            (format!("/kubepods/pod{}", uid.replace('0', "G")), None),
            ("/system.slice/ssh.service".to_owned(), None),
            ("/".to_owned(), None),
        ] {
            assert_eq!(pod(path.as_bytes()).as_deref(), expected, "{path}");
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
