//! The commands of the pages for people, run as they stand there, on a host with containers, a Prometheus, and no cluster.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use snug_tests::{
    agent,
    pages::{self, Block, Page, Runner},
};

use crate::{
    cannot_run, container,
    container::{Container, pod_list},
    has_program,
    metrics_servers::import_shop,
};

/// The page whose commands install the agent for all other pages.
const INSTALLATION: &str = "docs/start.md";
/// What the unit's start looks like in a block.
const STARTS: &str = "systemctl enable --now snug-agent";

/// Ends a group of processes when dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

fn folder_of(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join(program).is_file()).context("it is in the PATH")
}

/// Runs blocks and returns what they print.
fn run(blocks: &[Block], pods: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    import_shop(folder.path())?;
    fs::create_dir(path("host"))?;
    fs::create_dir(path("blocks"))?;
    fs::write(path("pods.json"), pods)?;
    for (number, block) in blocks.iter().enumerate() {
        fs::write(path(&format!("blocks/{number:02}-line-{}", block.line)), &block.text)?;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = agent::binary()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "/bin/bash"]).arg(here.join("tests/system/pages.sh"));
    command.arg(folder.path()).arg(pages::root()).arg(programs.parent().context("no folder")?);
    command.arg(folder_of("prometheus")?).arg(folder_of("victoria-metrics")?).process_group(0);
    let output = path("output");
    let log = fs::File::create(&output)?;
    let mut child = command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).spawn()?;
    let group = Group(Pid::from_child(&child));
    let status = child.wait();
    drop(group);
    let printed = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
    ensure!(status?.success() && printed.ends_with("@@ done\n"), "{printed}");
    Ok(printed)
}

/// The blocks of a page, after those that install the agent, unless the page does.
fn blocks_of(page: &Page, pages: &[Page]) -> Result<Vec<Block>> {
    let mut blocks = page.commands(&Runner::Host)?;
    if !blocks.iter().any(|block| block.text.contains(STARTS)) {
        let installation = pages.iter().find(|page| page.path == INSTALLATION).context(INSTALLATION)?;
        let mut before = installation.commands(&Runner::Host)?;
        before.retain(|block| block.text.contains(STARTS));
        blocks.splice(0..0, before);
    }
    Ok(blocks)
}

#[test]
fn commands_of_the_pages_run_as_they_stand() -> Result<()> {
    for program in ["prometheus", "victoria-metrics", "curl", "jq"] {
        if !has_program(program) {
            return cannot_run(format!("there is no {program}"));
        }
    }
    // Two minutes of usage are observed within half a minute.
    let mut containers: Vec<Container> = Vec::new();
    for _ in 0..4 {
        match container() {
            Ok(container) => containers.push(container),
            Err(why) => return cannot_run(why),
        }
    }
    let mut pods = Vec::new();
    for (number, container) in containers.iter_mut().enumerate() {
        container.run("while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.1; done")?;
        let mut pod = container.pod("shop", "web", "app");
        pod["metadata"]["name"] = format!("web-5d4f8c7b9c-x7k2{number}").into();
        pods.push(pod);
    }
    let pods = pod_list(&pods);
    let pages = pages::all();
    let with_commands: Vec<&Page> = pages
        .iter()
        .filter(|page| page.commands(&Runner::Host).is_ok_and(|blocks| !blocks.is_empty()))
        .collect();
    ensure!(with_commands.len() >= 3, "{with_commands:?}");
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let run = |page: &Page| -> Result<()> {
            let printed = run(&blocks_of(page, &pages)?, &pods).with_context(|| page.path.clone())?;
            println!("{}\n{printed}", page.path);
            if page.path == "README.md" || page.path == INSTALLATION {
                let tables = printed.matches("REQUESTS  CONTAINERS").count();
                ensure!(tables >= 2, "{}: a table from Prometheus and one from the agent", page.path);
            }
            Ok(())
        };
        let threads: Vec<_> = with_commands.iter().map(|page| scope.spawn(move || run(page))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic"))))
            .collect()
    });
    outcomes.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(())
}
