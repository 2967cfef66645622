//! Parameters in the binary form: null bitmap, types, names and values.

use crate::codec::{Malformed, Reader};

/// The attributes in front of a COM_QUERY text, checked but not copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    count: usize,
    nulls: &'a [u8],
    /// Type and name of each attribute.
    types: &'a [u8],
    values: &'a [u8],
}

/// One query attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub name: &'a [u8],
    /// The value as it is on the wire, without a length prefix; none for NULL.
    pub value: Option<&'a [u8]>,
    /// Type in the low byte, 0x8000 for unsigned.
    pub kind: u16,
}

impl<'a> Attributes<'a> {
    /// Takes the attribute block: number of parameters, number of sets, and for any parameters the null bitmap,
    /// types with names, and values.
    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = bounded_count(reader.lenenc()?)?;
        let sets = reader.lenenc()?;
        if sets != 1 {
            return Err(Malformed::Field { expected: "one set of parameters", got: sets });
        }
        if count == 0 {
            return Ok(Self::default());
        }
        let nulls = reader.take(count.div_ceil(8))?;
        let bound = reader.u8()?;
        if bound != 1 {
            return Err(Malformed::Field { expected: "query attributes with types", got: bound.into() });
        }
        let before = *reader;
        for _ in 0..count {
            take_type(reader, true)?;
        }
        let types = between(before, *reader);
        let before = *reader;
        let mut kinds = Reader::new(types);
        for index in 0..count {
            let (kind, _name) = take_type(&mut kinds, true)?;
            if !is_null(nulls, index) {
                take_value(reader, kind)?;
            }
        }
        Ok(Self { count, nulls, types, values: between(before, *reader) })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let (nulls, mut types, mut values) = (self.nulls, Reader::new(self.types), Reader::new(self.values));
        (0..self.count).map_while(move |index| {
            let (kind, name) = take_type(&mut types, true).ok()?;
            let value = if is_null(nulls, index) { None } else { Some(take_value(&mut values, kind).ok()?) };
            Some(Attribute { name, value, kind })
        })
    }
}

/// Takes a parameter's type, and its name where names are sent.
pub(super) fn take_type<'a>(reader: &mut Reader<'a>, named: bool) -> Result<(u16, &'a [u8]), Malformed> {
    let kind = reader.u16()?;
    let name = if named { reader.lenenc_bytes()? } else { &[] };
    Ok((kind, name))
}

/// Takes the value of a query attribute, of a type in `enum_field_types` (MySQL's `include/field_types.h`).
///
/// The text of the statement starts where the last value ends, so lengths have to be those that a server goes by:
/// MySQL 9.7 reads a value of any type without a fixed length here as a string, YEAR and NULL among them, and refuses
/// BOOL. Dates and times have their length in front as strings do. What it reads in a way that is hard to follow (odd type flags, strings longer than the packet) is refused.
fn take_value<'a>(reader: &mut Reader<'a>, kind: u16) -> Result<&'a [u8], Malformed> {
    let [code, flags] = kind.to_le_bytes();
    if code == TYPE_BOOL || flags & !UNSIGNED != 0 {
        return Err(Malformed::Field { expected: "a parameter type", got: kind.into() });
    }
    match code {
        TYPE_TINY => reader.take(1),
        TYPE_SHORT => reader.take(2),
        TYPE_LONG | TYPE_FLOAT => reader.take(4),
        TYPE_DOUBLE | TYPE_LONGLONG => reader.take(8),
        _string_or_time => reader.lenenc_bytes(),
    }
}

fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

/// Checks a number of parameters against what servers allow.
pub(super) fn bounded_count(count: u64) -> Result<usize, Malformed> {
    u16::try_from(count)
        .map(usize::from)
        .map_err(|_| Malformed::Field { expected: "at most 65535 parameters", got: count })
}

/// What has been taken from `before` to get to `after`.
fn between<'a>(mut before: Reader<'a>, after: Reader<'_>) -> &'a [u8] {
    before.take(before.remaining() - after.remaining()).unwrap_or_default()
}

const TYPE_TINY: u8 = 1;
const TYPE_SHORT: u8 = 2;
const TYPE_LONG: u8 = 3;
const TYPE_FLOAT: u8 = 4;
const TYPE_DOUBLE: u8 = 5;
const TYPE_LONGLONG: u8 = 8;
const TYPE_BOOL: u8 = 244;
/// The flag beside a type.
const UNSIGNED: u8 = 0x80;
