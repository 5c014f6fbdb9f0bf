//! Reads ELF files: shared libraries of programs, and the programs of BPF objects.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind,
    elf::FileHeader64,
    read::elf::{Dyn as _, ElfFile64, FileHeader as _},
};

/// The shared libraries that a program needs (`DT_NEEDED`); empty if it is static.
pub(crate) fn needed_libraries(program: &Path) -> Result<Vec<String>> {
    let data = read(program)?;
    let parse = || -> object::Result<Vec<String>> {
        let header = FileHeader64::<object::Endianness>::parse(&*data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, &*data)?;
        let Some((entries, link)) = sections.dynamic(endian, &*data)? else { return Ok(Vec::new()) };
        let strings = sections.strings(endian, &*data, link)?;
        let needed = entries.iter().filter(|entry| entry.tag(endian) == object::elf::DT_NEEDED);
        needed.map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned())).collect()
    };
    parse().with_context(|| format!("{} is not a valid ELF executable", program.display()))
}

/// The programs of a BPF object, as `section:function`, and whether it has BTF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BpfObject {
    pub(crate) programs: BTreeSet<String>,
    pub(crate) has_btf: bool,
}

/// Lists the programs that a loader finds in a BPF object.
pub(crate) fn inspect_bpf(path: &Path) -> Result<BpfObject> {
    let data = read(path)?;
    inspect_bpf_bytes(&data).with_context(|| format!("{} is not a valid BPF object", path.display()))
}

fn inspect_bpf_bytes(data: &[u8]) -> Result<BpfObject> {
    let file = ElfFile64::<object::Endianness>::parse(data)?;
    anyhow::ensure!(
        file.elf_header().e_machine(file.endian()) == object::elf::EM_BPF,
        "the ELF machine is not BPF"
    );
    let mut programs = BTreeSet::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_global()) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        // .text has the functions that programs call; each program is in a section named after its type.
        if section.kind() == SectionKind::Text && section.name()? != ".text" {
            programs.insert(format!("{}:{}", section.name()?, symbol.name()?));
        }
    }
    let has_btf = file.section_by_name(".BTF").is_some_and(|section| section.size() > 0);
    Ok(BpfObject { programs, has_btf })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_dynamic_program_needs_the_c_library_and_this_static_test_none() {
        let me = std::env::current_exe().unwrap();
        assert!(needed_libraries(&me).unwrap().is_empty());
        let shell = Path::new("/bin/sh");
        assert!(needed_libraries(shell).unwrap().iter().any(|library| library.starts_with("libc.so")));
    }

    #[test]
    fn other_files_than_bpf_objects_are_rejected_by_name() {
        let me = std::env::current_exe().unwrap();
        let error = format!("{:#}", inspect_bpf(&me).unwrap_err());
        assert!(error.contains(&me.display().to_string()) && error.contains("machine is not BPF"), "{error}");
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(inspect_bpf(&manifest).is_err());
        assert!(needed_libraries(&manifest).is_err());
        assert!(inspect_bpf(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }
}
