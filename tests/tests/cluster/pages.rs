//! The commands of the pages for people that need a cluster, run as they stand there.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use snug_tests::pages::{self, Runner};

use crate::node::node;

#[test]
fn commands_of_the_pages_run_as_they_stand() {
    let Some(_node) = node() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let path = folder.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let cli = std::env::var("SNUG_CLI_BIN").unwrap();
    let xtask = Path::new(&cli).with_file_name("xtask");
    program("snug", &format!("#!/bin/sh\nexec '{cli}' \"$@\"\n"));
    // The node has the image. The task and its options must exist.
    program(
        "cargo",
        &format!(
            "#!/bin/bash\n[ \"$1\" = xtask ] && exec '{}' \"${{@:2}}\" --help > /dev/null\n",
            xtask.display()
        ),
    );
    // The node has the image, and nothing is installed on the host.
    program("skopeo", "#!/bin/sh\n[ \"$1 $2\" = 'copy oci-archive:target/image/snug-agent-x86_64.tar' ]\n");
    program("install", "#!/bin/sh\n[ \"$4\" = /usr/local/bin/ ]\n");
    // The node has the image under the name that the file has.
    program("edit", "#!/bin/sh\ngrep -q newName: \"$1\"\n");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut run = 0;
    for page in pages::all() {
        for block in page.commands(&Runner::Cluster).unwrap() {
            let output = Command::new("bash")
                .args(["-eu", "-o", "pipefail", "-c", &block.text])
                .current_dir(pages::root())
                .env("PATH", &path)
                .env("EDITOR", "edit")
                .env("KUBECONFIG", std::env::var("SNUG_TEST_KUBECONFIG").unwrap())
                .output()
                .unwrap();
            let (out, error) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            // 3: the agent has not enough usage history yet.
            let is_fine = output.status.success() || output.status.code() == Some(3);
            assert!(is_fine, "{}:{}: {}\n{out}{error}", page.path, block.line, output.status);
            run += 1;
        }
    }
    assert!(run >= 5, "{run}");
}
