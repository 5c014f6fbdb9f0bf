//! A field of a kernel structure: its name in BTF, and its offset.

/// Offset of a field that this kernel does not have. The verifier removes the code that would read the field.
pub const ABSENT: u32 = u32::MAX;

/// A field whose offset the agent takes from BTF by its name.
#[derive(Clone, Copy, Debug)]
pub struct Path<O> {
    /// Structure and path of the field, as in `mem_cgroup.memory.usage`.
    pub name: &'static str,
    /// Name of the kernel's structure, as in `mem_cgroup`.
    pub structure: &'static str,
    /// The field, and those around it.
    pub path: &'static str,
    /// Names of the measurements that need it.
    pub measurements: &'static [&'static str],
    /// Where its offset belongs.
    pub at: fn(&mut O) -> &mut u32,
}

/// The path of one field: structure, path, and the measurements that need it.
#[macro_export]
macro_rules! path_of {
    ($offsets:ty, $field:ident: $structure:ident $path:literal $(for $($measurement:ident)+)?) => {
        $crate::abi::field::Path {
            name: concat!(stringify!($structure), ".", $path),
            structure: stringify!($structure),
            path: $path,
            measurements: &[$($(stringify!($measurement),)+)?],
            at: |offsets: &mut $offsets| &mut offsets.$field,
        }
    };
}
