//! Values that the eBPF programs and the cgroup files both have. Each is declared once, with how the two are compared.

use super::Values;

/// A value that is compared.
pub(crate) struct Compared {
    /// As in `swap.usage_bytes`.
    pub(crate) name: &'static str,
    /// In its own unit.
    pub(crate) granularity: u64,
    /// `None` if the source does not have it.
    pub(crate) value: fn(&Values) -> Option<u64>,
}

impl Compared {
    pub(crate) const fn new(name: &'static str, granularity: u64, value: fn(&Values) -> Option<u64>) -> Self {
        Self { name, granularity, value }
    }
}

/// Files have times in microseconds.
pub(crate) const MICROSECOND: u64 = 1_000;

/// Declares a structure of values, and after each value how it is compared: `count` to the digit, `time` by the microsecond,
/// `limit` and `time_limit` likewise with `None` as no limit, `never` not at all.
macro_rules! compared {
    (
        $(#[$about:meta])+
        $name:ident as $of:ident {
            $($(#[$field_about:meta])+ $field:ident: $type:ty = $how:ident,)+
        }
    ) => {
        $(#[$about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_about])+ pub $field: $type,)+
        }

        impl $name {
            pub(crate) const COMPARED: &[$crate::values::compared::Compared] = &[
                $($crate::values::compared::Compared::new(
                    concat!(stringify!($of), ".", stringify!($field)),
                    $crate::values::compared::compared!(@granularity $how),
                    |values| $crate::values::compared::compared!(@$how values.$of?.$field),
                ),)+
            ];
        }
    };
    (@granularity count) => { 1 };
    (@granularity limit) => { 1 };
    (@granularity never) => { 1 };
    (@granularity time) => { $crate::values::compared::MICROSECOND };
    (@granularity time_limit) => { $crate::values::compared::MICROSECOND };
    (@count $value:expr) => { Option::from($value) };
    (@time $value:expr) => { Option::from($value) };
    (@limit $value:expr) => { Some($value.unwrap_or(u64::MAX)) };
    (@time_limit $value:expr) => { Some($value.unwrap_or(u64::MAX)) };
    (@never $value:expr) => {{
        let _ = $value;
        None
    }};
}
pub(crate) use compared;
