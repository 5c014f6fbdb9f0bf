//! The commands of the pages for people that need a cluster, run as they stand there: from the installation to its removal.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use snug_tests::pages::{self, Block, Page, Runner};
use tempfile::TempDir;

use crate::node::bare_node;

/// The page whose commands install the agent for all other pages, and the command that does.
const INSTALLATION: &str = "docs/start.md";
const INSTALLS: &str = "kubectl apply -k deploy/base";
/// How long a block is run again while there is not enough usage history for a recommendation.
const HISTORY: Duration = Duration::from_secs(90);
/// What `snug recommend` ends with meanwhile.
const NOT_ENOUGH: i32 = 3;

/// A folder for commands, with `deploy` and with programs that stand in for what the node does not have.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // The commands change files in it.
    let copied = Command::new("cp").arg("-r").arg(pages::root().join("deploy")).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    let cli = env::var("SNUG_CLI_BIN").unwrap();
    let built = |name: &str| Path::new(&cli).with_file_name(name).display().to_string();
    let programs = [
        ("snug", format!("exec '{cli}' \"$@\"")),
        // The image is built already. The task and its options must exist.
        ("cargo", format!("[ \"$1\" = xtask ] && exec '{}' \"${{@:2}}\" --help > /dev/null", built("xtask"))),
        // There is no registry: the node has the image, and gets it under the name that it would be pulled by.
        (
            "skopeo",
            "[ \"$1 $2\" = 'copy oci-archive:target/image/snug-agent-x86_64.tar' ]\n\
             ctr --namespace k8s.io images tag --force snug.example/snug-agent:0.1.0 \"${3#docker://}\" > /dev/null"
                .to_owned(),
        ),
        // Nothing is installed on the host.
        ("install", "[ \"$4\" = /usr/local/bin/ ]".to_owned()),
        // Until somebody presses Ctrl-C.
        (
            "snug-agent",
            format!("timeout --signal INT 5 '{}' --listen off \"$@\" || [ $? = 124 ]", built("snug-agent")),
        ),
    ];
    for (name, script) in programs {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/bash\nset -eu\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// The blocks of a page, after the one that installs the agent, unless the page does.
fn blocks_of(page: &Page, pages: &[Page]) -> Vec<Block> {
    let mut blocks = page.commands(&Runner::Cluster).unwrap();
    if !blocks.is_empty() && !blocks.iter().any(|block| block.text.contains(INSTALLS)) {
        let installation = pages.iter().find(|page| page.path == INSTALLATION).unwrap();
        let mut before = installation.commands(&Runner::Cluster).unwrap();
        before.retain(|block| block.text.contains(INSTALLS));
        blocks.splice(0..0, before);
    }
    blocks
}

fn run_once(block: &Block, folder: &Path) -> Output {
    let path = format!("{}:{}", folder.display(), env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-eu", "-o", "pipefail", "-c", &block.text]).current_dir(folder);
    bash.env("PATH", path).env("HOME", folder);
    bash.env("KUBECONFIG", env::var("SNUG_TEST_KUBECONFIG").unwrap());
    // An agent refuses variables that it does not know.
    let of_tests = env::vars_os().map(|(name, _)| name);
    of_tests.filter(|name| name.to_string_lossy().starts_with("SNUG_")).for_each(|name| {
        bash.env_remove(name);
    });
    bash.output().unwrap()
}

/// Runs a block until there is enough usage history for it.
fn run(block: &Block, folder: &Path) -> Output {
    let started = Instant::now();
    loop {
        let output = run_once(block, folder);
        if output.status.code() != Some(NOT_ENOUGH) || started.elapsed() > HISTORY {
            return output;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn commands_of_the_pages_run_as_they_stand() {
    let Some(node) = bare_node() else { return };
    let folder = workplace();
    let pages = pages::all();
    let mut run_blocks = 0;
    for page in &pages {
        let started = Instant::now();
        for block in blocks_of(page, &pages) {
            let output = run(&block, folder.path());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (out, error) = (text(&output.stdout), text(&output.stderr));
            let place = format!("{}:{}", page.path, block.line);
            assert!(output.status.success(), "{place}: {}\n{out}{error}", output.status);
            println!("{place}: {:.1} s after the first command\n{out}", started.elapsed().as_secs_f64());
            run_blocks += 1;
        }
    }
    assert!(run_blocks >= 12, "{run_blocks}");
    // What is installed now is that of a page.
    node.install_anew().unwrap();
}
