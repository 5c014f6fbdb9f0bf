//! Development tasks: `cargo xtask <task>`.

mod apt;
mod backtest;
mod bench;
mod browser;
mod build;
mod build_ebpf;
mod cluster;
mod command;
mod containers;
mod demo;
mod deny;
mod doctor;
mod elf;
mod emulator;
mod files;
mod fuzz;
mod host;
mod image;
mod kernels;
mod kubernetes;
mod libtest;
mod manifests;
mod metadata;
mod mkdocs;
mod otlp;
mod pages;
mod python;
mod release;
mod setup;
mod soak;
mod test;
mod toolchain;
mod version;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Development tasks of Snug: build, test, measure and package.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    Setup(setup::Options),
    Doctor(doctor::Options),
    BuildEbpf(build_ebpf::Options),
    Build(build::Options),
    Image(image::Options),
    Release(release::Options),
    Pages(pages::Options),
    Cluster(cluster::Options),
    Vm(vm::Options),
    Kernels(kernels::Options),
    Soak(soak::Options),
    Test(test::Options),
    Bench(bench::Options),
    Demo(demo::Options),
    Fuzz(fuzz::Options),
    Backtest(backtest::Options),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Setup(options) => setup::run(&options),
        Task::Doctor(options) => doctor::run(&options),
        Task::BuildEbpf(options) => build_ebpf::run(&options),
        Task::Build(options) => build::run(&options),
        Task::Image(options) => image::run(&options),
        Task::Release(options) => release::run(&options),
        Task::Pages(options) => pages::run(&options),
        Task::Cluster(options) => cluster::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Kernels(options) => kernels::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Backtest(options) => backtest::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
