use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use super::*;

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn written(cpu: &[u8], memory: &[u8]) -> Result<Trace, Error> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CPU), cpu).unwrap();
    fs::write(folder.path().join(MEMORY), memory).unwrap();
    read(folder.path())
}

const GOOD: &str = "namespace,pod,container,node,m0,m1\nshop,web-1,app,n,1.5,\nshop,web-2,app,n,,2\n";

fn refused(cpu: &str) -> String {
    let error = written(&packed(cpu), &packed(GOOD)).unwrap_err().to_string();
    error.split_once(CPU).map_or(error.clone(), |(_, after)| after.to_owned())
}

#[test]
fn rows_become_workloads() {
    let trace = written(&packed(GOOD), &packed(GOOD)).unwrap();
    assert_eq!((trace.minutes, trace.groups.len(), trace.groups[0].rows.len()), (2, 1, 2));
    assert_eq!(trace.groups[0].rows[1].cpu.at(1), Some(2.0));
}

#[test]
fn invalid_traces_are_errors_with_file_and_line() {
    assert_eq!(refused(""), ", line 1: the file is empty: a heading and one row per container are expected");
    assert_eq!(
        refused("a,b\n"),
        ", line 1: the heading begins with \"a,b\"; \"namespace,pod,container,node\" is expected"
    );
    assert_eq!(refused("namespace,pod,container,node\n"), ", line 1: the heading has no minutes");
    for bad in ["-1", "NaN", "inf", "1e300", "12Mi", "x"] {
        let text = GOOD.replace("1.5", bad);
        let wanted = format!(
            ", line 2: minute 0 has {bad:?}, which is not a number from 0 up; leave the cell empty for no sample"
        );
        assert_eq!(refused(&text), wanted);
    }
    assert!(refused(&GOOD.replace("web-2,app,n,,2", "web-2,app,n,2")).starts_with(", line 3: "));
    let other = written(&packed(&GOOD.replace("web-2", "web-3")), &packed(GOOD)).unwrap_err().to_string();
    assert!(other.contains("line 3: the row is not that of shop/web-3/app/n"), "{other}");
    assert!(
        refused(GOOD.rsplit_once("shop").unwrap().0)
            .ends_with("the file ends here, but the other file has more rows")
    );
    let twice = GOOD.replace("web-2", "web-1");
    assert!(
        written(&packed(&twice), &packed(&twice))
            .unwrap_err()
            .to_string()
            .contains("shop/web-1/app/n has two rows")
    );
    let heading = GOOD.split_inclusive('\n').next().unwrap();
    assert!(written(&packed(heading), &packed(heading)).unwrap_err().to_string().contains("no rows"));
}

#[test]
fn truncated_traces_are_errors() {
    let whole = packed(GOOD);
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        assert!(written(&whole[..length], &whole).is_err(), "{length} of {} bytes", whole.len());
    }
    assert!(matches!(written(GOOD.as_bytes(), &whole), Err(Error::Read { .. })), "not packed at all");
    assert!(matches!(read(Path::new("/nowhere")), Err(Error::Read { .. })));
}
