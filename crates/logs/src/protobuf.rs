//! Just enough of protocol buffers to read: the fields of a message, one after the other.

/// A message that ends within a field, or has one of a kind that nobody writes any more.
#[derive(Debug)]
pub(crate) struct Broken;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A text, a message, or numbers in a row.
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message with their numbers. Nothing follows a broken field.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    #[inline]
    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Broken>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Broken))
    }
}

/// Takes a number of up to ten bytes, seven bits each, off the front.
#[inline]
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // The tenth byte has one bit to give; what stands above it is dropped.
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_end_at_the_first_broken_one() {
        let message = [0x08, 0xAC, 0x02, 0x12, 0x02, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F, 0x08, 0x80];
        let fields: Vec<_> = Fields::of(&message).collect();
        assert!(matches!(
            fields[..],
            [
                Ok((1, Wire::Varint(300))),
                Ok((2, Wire::Bytes(b"hi"))),
                Ok((3, Wire::Fixed32(0x3F80_0000))),
                Err(Broken)
            ]
        ));
    }

    #[test]
    fn lengths_beyond_the_message_and_groups_are_broken() {
        for message in
            [&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01][..], &[0x0B], &[0x80; 11]]
        {
            assert!(matches!(Fields::of(message).collect::<Vec<_>>()[..], [Err(Broken)]), "{message:?}");
        }
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let mut bytes = &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01][..];
        assert_eq!(varint(&mut bytes), Some(u64::MAX));
        assert!(bytes.is_empty());
    }
}
