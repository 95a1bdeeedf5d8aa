//! Whether the files that declare the cluster can be used, whole.

use std::path::PathBuf;

use super::{Check, Verdict, bad, ok};
use crate::{config::Config, kube::manifests::Manifests};

/// The check, where there are such files.
pub(super) fn check(config: &Config) -> Option<Check> {
    let paths: Vec<PathBuf> = [&config.manifests, &config.proposed]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    (!paths.is_empty()).then(|| of(&paths))
}

fn of(paths: &[PathBuf]) -> Check {
    const SUBJECT: &str = "manifests";
    let manifests = match Manifests::read(paths) {
        Ok(manifests) => manifests,
        Err(error) => {
            let advice = "`nodewatch run` refuses to start without them";
            return bad(SUBJECT, Verdict::Fail, error.to_string(), advice);
        }
    };
    let status = &manifests.status;
    let policies = manifests.policies.len() + manifests.proposed.len();
    let found = format!(
        "{} objects and {policies} policies in {} files",
        manifests.cluster.len(),
        status.files
    );
    let Some(first) = status.skipped_in.first() else {
        return ok(SUBJECT, found);
    };
    bad(
        SUBJECT,
        Verdict::Warn,
        format!(
            "{found}, {} left out; {}: {}",
            manifests.left_out, first.file, first.last
        ),
        "`nodewatch policy eval` with the same files names all that is left out",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_left_out_is_a_warning_and_what_is_not_there_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.yaml");
        let paths = [file.clone()];
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}\n";
        fs::write(&file, pod).unwrap();
        let check = of(&paths);
        assert_eq!(check.verdict, Verdict::Ok);
        assert_eq!(check.found, "1 objects and 0 policies in 1 files");
        fs::write(&file, format!("{pod}---\n{}", pod.replace("name: a,", ""))).unwrap();
        let check = of(&paths);
        assert_eq!(check.verdict, Verdict::Warn);
        let wanted = format!(
            "1 objects and 0 policies in 1 files, 1 left out; {}: line 3: Pod x/without a name: \
             metadata.name: missing: expected a string",
            file.display()
        );
        assert_eq!(check.found, wanted);
        fs::remove_file(&file).unwrap();
        let check = of(&paths);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.found.contains("m.yaml"), "{}", check.found);
    }
}
