//! A parser of BTF, the kernel's type information, which finds structure fields and enumerators by name.
//!
//! aya parses BTF but does not expose members of structures. The one crate that does has the licence LGPL, which does not
//! fit a statically linked agent. The format: <https://docs.kernel.org/bpf/btf.html>.

/// `BTF_MAGIC`, stored in the byte order of the machine.
const MAGIC: u16 = 0xeb9f;

const INT: u8 = 1;
const PTR: u8 = 2;
const ARRAY: u8 = 3;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const TYPEDEF: u8 = 8;
const VOLATILE: u8 = 9;
const CONST: u8 = 10;
const RESTRICT: u8 = 11;
const FUNC_PROTO: u8 = 13;
const VAR: u8 = 14;
const DATASEC: u8 = 15;
const DECL_TAG: u8 = 17;
const TYPE_TAG: u8 = 18;
const ENUM64: u8 = 19;
const LAST_KIND: u8 = ENUM64;

/// Maximum nesting of structures and type modifiers; ends the search in types that refer to each other in a cycle.
const MAX_DEPTH: usize = 32;

/// Why bytes cannot be parsed as BTF.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not BTF: {0}")]
pub struct ParseBtfError(&'static str);

/// Type of a field, without modifiers (const, typedef and the like).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Pointer,
    /// An array with this number of elements.
    Array(u32),
    /// Anything else.
    Other,
}

/// A field found by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Offset from the start of the structure, bytes.
    pub(super) offset: u32,
    /// Type of the field.
    pub(super) kind: FieldKind,
}

/// Parsed BTF, borrowed from the bytes of the file.
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset in `types` of each type, by type id; id 0 is void.
    starts: Vec<u32>,
    /// Ids of all structures with members, of all 32-bit enumerations, and of all typedefs: a kernel has a hundred thousand types,
    /// and each name is searched for among its kind.
    structures: Vec<usize>,
    enumerations: Vec<usize>,
    typedefs: Vec<usize>,
}

/// `struct btf_type`.
#[derive(Clone, Copy)]
struct TypeHeader {
    kind: u8,
    bit_fields: bool,
    members: u32,
    refers_to: u32,
}

impl<'a> Btf<'a> {
    /// Parses the header and indexes the types.
    ///
    /// # Errors
    /// When the bytes are truncated, have another byte order or an unknown kind of type.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ParseBtfError> {
        let word = |at| u32_at(bytes, at).ok_or(ParseBtfError("the file is too short"));
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()[..]) {
            return Err(ParseBtfError("the file does not start with the magic number"));
        }
        let header = word(4)? as usize;
        let section = |offset: u32, length: u32| {
            let start = header.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let types = section(word(8)?, word(12)?).ok_or(ParseBtfError("the type section is truncated"))?;
        let strings =
            section(word(16)?, word(20)?).ok_or(ParseBtfError("the string section is truncated"))?;
        let mut btf = Self {
            types,
            strings,
            starts: vec![0],
            structures: Vec::new(),
            enumerations: Vec::new(),
            typedefs: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let end = btf.add(at).ok_or(ParseBtfError("a type is truncated or of an unknown kind"))?;
            btf.starts.push(u32::try_from(at).map_err(|_| ParseBtfError("the file is too large"))?);
            at = end;
        }
        Ok(btf)
    }

    /// Adds the next type, which starts at the offset `at`, to the ids of its kind. Returns the offset of its end; `None` if the type
    /// exceeds the section.
    fn add(&mut self, at: usize) -> Option<usize> {
        let (kind, members) = kind_and_members(u32_at(self.types, at.checked_add(4)?)?);
        let id = self.starts.len();
        match kind {
            STRUCT if members > 0 => self.structures.push(id),
            ENUM => self.enumerations.push(id),
            TYPEDEF => self.typedefs.push(id),
            _ => {}
        }
        let end = at.checked_add(length(kind, members as usize)?)?;
        (end <= self.types.len()).then_some(end)
    }

    /// Finds the field `path` of a structure. `path` may name fields of nested structures ("a.b") and of unnamed members.
    pub(super) fn field(&self, structure: &str, path: &str) -> Option<Field> {
        let mut structures = self.structures.iter();
        let whole = structures.find(|id| self.is_named(**id, structure.as_bytes()))?;
        let (mut offset, mut id) = (0u32, *whole);
        for name in path.split('.') {
            let (inner, refers_to) = self.member(id, name.as_bytes(), MAX_DEPTH)?;
            offset = offset.checked_add(inner)?;
            id = self.strip_modifiers(refers_to)?;
        }
        let kind = match self.head(id)?.kind {
            PTR => FieldKind::Pointer,
            ARRAY => FieldKind::Array(u32_at(self.types, self.start(id)? + 12 + 8)?),
            _ => FieldKind::Other,
        };
        Some(Field { offset, kind })
    }

    /// The value of an enumerator of a 32-bit enumeration.
    pub(super) fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let mut named = self.enumerations.iter().filter(|id| self.is_named(**id, enumeration.as_bytes()));
        named.find_map(|id| {
            let first = self.start(*id)? + 12;
            (0..self.head(*id)?.members as usize).find_map(|index| {
                let at = first + 8 * index;
                let own = self.name(u32_at(self.types, at)?);
                (own == name.as_bytes()).then(|| u32_at(self.types, at + 4))?
            })
        })
    }

    /// Whether argument `index` of a tracepoint is a pointer. The kernel has a type `btf_trace_<name>` for each tracepoint.
    pub(super) fn tracepoint_argument_is_pointer(&self, tracepoint: &str, index: usize) -> Option<bool> {
        let name = format!("btf_trace_{tracepoint}");
        let function = self.typedefs.iter().find(|id| self.is_named(**id, name.as_bytes()))?;
        let pointer = self.head(self.strip_modifiers(*function)?).filter(|head| head.kind == PTR)?;
        let prototype = pointer.refers_to as usize;
        let head = self.head(prototype).filter(|head| head.kind == FUNC_PROTO)?;
        // The first parameter of the prototype is the tracepoint's private data.
        let parameter = index + 1;
        if parameter >= head.members as usize {
            return None;
        }
        let refers_to = u32_at(self.types, self.start(prototype)? + 12 + 8 * parameter + 4)? as usize;
        Some(self.head(self.strip_modifiers(refers_to)?)?.kind == PTR)
    }

    /// Byte offset and type id of a member of the structure or union `id`, or of its unnamed members.
    fn member(&self, id: usize, name: &[u8], depth: usize) -> Option<(u32, usize)> {
        let head = self.head(id)?;
        if depth == 0 || !matches!(head.kind, STRUCT | UNION) {
            return None;
        }
        let first = self.start(id)? + 12;
        (0..head.members as usize).find_map(|index| {
            let at = first + 12 * index;
            let own = self.name(u32_at(self.types, at)?);
            let refers_to = u32_at(self.types, at + 4)? as usize;
            let bits = u32_at(self.types, at + 8)?;
            let bytes = if head.bit_fields { bits & 0x00ff_ffff } else { bits } / 8;
            if own == name {
                return Some((bytes, refers_to));
            }
            if !own.is_empty() {
                return None;
            }
            let (inner, refers_to) = self.member(self.strip_modifiers(refers_to)?, name, depth - 1)?;
            Some((bytes.checked_add(inner)?, refers_to))
        })
    }

    /// The type id behind const, volatile, restrict, typedef and type tags.
    fn strip_modifiers(&self, mut id: usize) -> Option<usize> {
        for _ in 0..MAX_DEPTH {
            let head = self.head(id)?;
            match head.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = head.refers_to as usize,
                _ => return Some(id),
            }
        }
        None
    }

    fn start(&self, id: usize) -> Option<usize> {
        if id == 0 {
            return None;
        }
        self.starts.get(id).map(|start| *start as usize)
    }

    fn head(&self, id: usize) -> Option<TypeHeader> {
        let at = self.start(id)?;
        let info = u32_at(self.types, at.checked_add(4)?)?;
        let (kind, members) = kind_and_members(info);
        Some(TypeHeader {
            kind,
            bit_fields: info >> 31 == 1,
            members,
            refers_to: u32_at(self.types, at + 8)?,
        })
    }

    fn is_named(&self, id: usize, name: &[u8]) -> bool {
        let own = || self.strings.get(u32_at(self.types, self.start(id)?)? as usize..);
        own()
            .and_then(|own| own.strip_prefix(name))
            .is_some_and(|rest| matches!(rest.first(), None | Some(0)))
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The kind of a type and its number of members, from `info` of `struct btf_type`.
const fn kind_and_members(info: u32) -> (u8, u32) {
    (((info >> 24) & 0x1f) as u8, info & 0xffff)
}

/// Size of a type, bytes; `None` if the kind is unknown.
const fn length(kind: u8, members: usize) -> Option<usize> {
    let extra = match kind {
        0 => return None,
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => 12 * members,
        ENUM | FUNC_PROTO => 8 * members,
        kind if kind <= LAST_KIND => 0,
        _ => return None,
    };
    Some(12 + extra)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Builds BTF for tests.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0] }
        }

        fn string(&mut self, text: &str) -> u32 {
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.as_bytes());
            self.strings.push(0);
            at
        }

        fn add(&mut self, name: &str, kind: u8, members: u32, refers_to: u32, extra: &[u32]) {
            let name = self.string(name);
            for word in [name, u32::from(kind) << 24 | members, refers_to].iter().chain(extra) {
                self.types.extend(word.to_ne_bytes());
            }
        }

        fn members(&mut self, members: &[(&str, u32, u32)]) -> Vec<u32> {
            members.iter().flat_map(|(name, kind, offset)| [self.string(name), *kind, offset * 8]).collect()
        }

        fn build(self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend([1, 0]);
            for word in [24, 0, types, types, strings] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            bytes
        }
    }

    /// `struct outer { int a; const inner b; union { int c; int *d; }; int e[7]; }; struct inner { int x; int y; };`
    fn sample() -> Vec<u8> {
        let mut builder = Builder::new();
        builder.add("int", INT, 0, 4, &[0]);
        let inner = builder.members(&[("x", 1, 0), ("y", 1, 4)]);
        builder.add("inner", STRUCT, 2, 8, &inner);
        builder.add("", CONST, 0, 2, &[]);
        builder.add("", PTR, 0, 1, &[]);
        let union = builder.members(&[("c", 1, 0), ("d", 4, 0)]);
        builder.add("", UNION, 2, 8, &union);
        builder.add("", ARRAY, 0, 0, &[1, 1, 7]);
        let outer = builder.members(&[("a", 1, 0), ("b", 3, 8), ("", 5, 16), ("e", 6, 24)]);
        builder.add("outer", STRUCT, 4, 52, &outer);
        let (first, second) = (builder.string("ONE"), builder.string("FIVE"));
        builder.add("numbers", ENUM, 2, 4, &[first, 1, second, 5]);
        builder.build()
    }

    #[test]
    fn fields_are_found_through_inner_and_unnamed_structures() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        let found = |path| btf.field("outer", path).map(|field| (field.offset, field.kind));
        assert_eq!(found("a"), Some((0, FieldKind::Other)));
        assert_eq!(found("b.y"), Some((12, FieldKind::Other)));
        assert_eq!(found("d"), Some((16, FieldKind::Pointer)));
        assert_eq!(found("e"), Some((24, FieldKind::Array(7))));
        assert_eq!(found("z"), None);
        assert_eq!(found("a.x"), None);
        assert_eq!(btf.field("nobody", "a"), None);
    }

    #[test]
    fn enumerators_are_found() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.enumerator("numbers", "FIVE"), Some(5));
        assert_eq!(btf.enumerator("numbers", "SIX"), None);
        assert_eq!(btf.enumerator("outer", "ONE"), None);
    }

    #[test]
    fn types_that_refer_to_each_other_in_a_cycle_are_no_endless_loop() {
        let mut builder = Builder::new();
        builder.add("", CONST, 0, 2, &[]);
        builder.add("", VOLATILE, 0, 1, &[]);
        let members = builder.members(&[("a", 1, 0), ("", 3, 0)]);
        builder.add("outer", STRUCT, 2, 8, &members);
        let bytes = builder.build();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.field("outer", "a"), None);
        assert_eq!(btf.field("outer", "b"), None);
    }

    #[test]
    fn bytes_that_are_not_btf_are_refused() {
        assert!(Btf::parse(b"").is_err());
        assert!(Btf::parse(b"\x7fELF and more of it, long enough").is_err());
        let whole = sample();
        let cut = Btf::parse(&whole[..whole.len() - 1]).err().unwrap();
        assert_eq!(cut.to_string(), "not BTF: the string section is truncated");
    }

    proptest! {
        #[test]
        fn wild_bytes_never_panic(damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20)) {
            let mut bytes = sample();
            for (index, byte) in damage {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(btf) = Btf::parse(&bytes) {
                for path in ["a", "b.y", "d", "e", "z"] {
                    btf.field("outer", path);
                }
                btf.enumerator("numbers", "FIVE");
            }
        }
    }
}
