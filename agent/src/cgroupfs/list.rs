//! Lists the cgroups of a hierarchy.

use std::{
    fs, io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::mounts::Hierarchy;

/// Maximum depth: enough for nested containers, and a bound for directories that are no cgroup hierarchy.
pub const MAX_DEPTH: usize = 64;

/// A cgroup's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupDir {
    /// The path below the mount, beginning with `/`; `/` for the root itself.
    pub path: String,
    /// The inode number, which is the kernfs id on 64-bit machines.
    pub inode: u64,
    /// The directory's birth time, if the file system has one, else its modification time. cgroup file systems have no birth
    /// time. Their modification time is when the kernel allocated the inode: at the creation of the cgroup, or later if the
    /// inode was evicted and allocated again. So it is never too early, and the earliest one seen is the best.
    pub created: SystemTime,
}

/// The cgroups of a hierarchy at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The cgroups: the root first, and every cgroup after its parent.
    pub cgroups: Vec<CgroupDir>,
    /// Cgroups left out, with their descendants, because their names are not UTF-8.
    pub skipped_names: u64,
    /// Cgroups left out because they exceed the maximum depth.
    pub too_deep: u64,
    /// Cgroups left out because there are too many below one container or unit.
    pub too_many: u64,
    /// Cgroups whose children could not be listed, except those that were removed meanwhile.
    pub unreadable: u64,
}

/// Why the cgroups of a hierarchy could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the cgroups in {}", path.display())]
pub struct ListError {
    /// The hierarchy's mount.
    pub path: PathBuf,
    /// The error of the system call.
    pub source: io::Error,
}

/// Lists all cgroups of a hierarchy, down to `max_depth` levels below its root, without those removed meanwhile. `room_below` a path:
/// how many of the cgroups below it are listed; `None`: all.
pub fn list_cgroups(
    hierarchy: &Hierarchy,
    max_depth: usize,
    room_below: impl Fn(&str) -> Option<usize>,
) -> Result<Listing, ListError> {
    list_directory_tree(&hierarchy.mount, max_depth, room_below)
        .map_err(|source| ListError { path: hierarchy.mount.clone(), source })
}

fn list_directory_tree(
    mount: &Path,
    max_depth: usize,
    room_below: impl Fn(&str) -> Option<usize>,
) -> io::Result<Listing> {
    let root = fs::metadata(mount)?;
    let mut listing = Listing::default();
    listing.cgroups.push(CgroupDir { path: "/".to_owned(), inode: root.ino(), created: created(&root) });
    // Paths below the mount (empty for the root) and their depths.
    // The rooms of the cgroups around those that are listed.
    let mut rooms: Vec<usize> = vec![usize::MAX];
    let mut to_list = vec![(String::new(), 0, 0)];
    while let Some((path, depth, around)) = to_list.pop() {
        let room = room_below(&path).filter(|_| !path.is_empty());
        let own = room.map_or(around, |room| {
            rooms.push(room.min(rooms.get(around).copied().unwrap_or(0)));
            rooms.len() - 1
        });
        let directory = mount.join(path.trim_start_matches('/'));
        let left = rooms.get_mut(own);
        match list(&directory, &path, depth < max_depth, left, &mut listing) {
            Ok(parents) => to_list.extend(parents.into_iter().map(|child| (child, depth + 1, own))),
            Err(error) if path.is_empty() => return Err(error),
            Err(error) if vanished(&error) => {}
            Err(_) => listing.unreadable += 1,
        }
    }
    Ok(listing)
}

/// Adds the children of a cgroup. Returns the paths of those that have children themselves.
fn list(
    directory: &Path,
    path: &str,
    within_depth: bool,
    left: Option<&mut usize>,
    listing: &mut Listing,
) -> io::Result<Vec<String>> {
    let mut parents = Vec::new();
    let mut unlimited = usize::MAX;
    let left = left.unwrap_or(&mut unlimited);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // The type comes from the directory entry: symbolic links are no directories, and no stat is needed for files.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if !within_depth {
            listing.too_deep += 1;
            continue;
        }
        if *left == 0 {
            // There may be any number of them, so they are not even counted.
            listing.too_many += 1;
            break;
        }
        *left -= 1;
        let Ok(name) = entry.file_name().into_string() else {
            listing.skipped_names += 1;
            continue;
        };
        let about = match entry.metadata() {
            Ok(about) => about,
            Err(error) => {
                listing.unreadable += u64::from(!vanished(&error));
                continue;
            }
        };
        let child = format!("{path}/{name}");
        // A directory without subdirectories has two links: it need not be listed. That is the case for most cgroups.
        if about.nlink() != 2 {
            parents.push(child.clone());
        }
        listing.cgroups.push(CgroupDir { path: child, inode: entry.ino(), created: created(&about) });
    }
    Ok(parents)
}

fn created(about: &fs::Metadata) -> SystemTime {
    about.created().or_else(|_| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn vanished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    fn paths(listing: &Listing) -> Vec<&str> {
        let mut paths: Vec<&str> = listing.cgroups.iter().map(|cgroup| cgroup.path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn directories_only_and_no_links() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kubepods/burstable/pod1")).unwrap();
        fs::create_dir(root.path().join("system.slice")).unwrap();
        fs::create_dir(root.path().join(OsStr::from_bytes(b"caf\xe9"))).unwrap();
        fs::write(root.path().join("kubepods/cgroup.procs"), "").unwrap();
        fs::create_dir(outside.path().join("never")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("kubepods/loop")).unwrap();

        let listing = list_directory_tree(root.path(), MAX_DEPTH, |_| None).unwrap();
        let expected = ["/", "/kubepods", "/kubepods/burstable", "/kubepods/burstable/pod1", "/system.slice"];
        assert_eq!(paths(&listing), expected);
        assert_eq!((listing.skipped_names, listing.too_deep, listing.unreadable), (1, 0, 0));
        for cgroup in &listing.cgroups {
            let about = fs::metadata(root.path().join(cgroup.path.trim_start_matches('/'))).unwrap();
            assert_eq!(cgroup.inode, about.ino());
            assert!(cgroup.created <= SystemTime::now());
        }
    }

    #[test]
    fn parents_come_first_and_depth_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c/d")).unwrap();
        fs::create_dir_all(root.path().join("a/e")).unwrap();
        let listing = list_directory_tree(root.path(), 2, |_| None).unwrap();
        assert_eq!(paths(&listing), ["/", "/a", "/a/b", "/a/e"]);
        assert_eq!(listing.too_deep, 1);
        for (index, cgroup) in listing.cgroups.iter().enumerate().skip(1) {
            let parent = cgroup.path.rsplit_once('/').unwrap().0;
            let parent = if parent.is_empty() { "/" } else { parent };
            assert!(listing.cgroups[..index].iter().any(|before| before.path == parent), "{}", cgroup.path);
        }
    }

    #[test]
    fn what_is_below_one_cgroup_is_bounded_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..50 {
            fs::create_dir_all(root.path().join(format!("box/{number}/deep"))).unwrap();
        }
        for name in ["before", "box-2", "later/below"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let room = |path: &str| (path == "/box").then_some(7);
        let listing = list_directory_tree(root.path(), MAX_DEPTH, room).unwrap();
        let inside = listing.cgroups.iter().filter(|cgroup| cgroup.path.starts_with("/box/")).count();
        assert_eq!(inside, 7);
        assert!(listing.too_many > 0);
        let outside: Vec<_> = paths(&listing).into_iter().filter(|path| !path.starts_with("/box/")).collect();
        assert_eq!(outside, ["/", "/before", "/box", "/box-2", "/later", "/later/below"]);
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let mount = PathBuf::from("/nonexistent/snug");
        let hierarchy = Hierarchy {
            mount: mount.clone(),
            version: crate::cgroupfs::mounts::Version::V2,
            controllers: Vec::new(),
            root_in_hierarchy: "/".to_owned(),
        };
        assert_eq!(list_cgroups(&hierarchy, 3, |_| None).unwrap_err().path, mount);
    }
}
