//! Little-endian records: what the manifest, the index, the journal and the wire are made of.
//!
//! A [`Reader`] never panics, never allocates more than its input is long, and knows whether anything is left.

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Fewer bytes than a field needs.
    #[error("record ends inside {0}")]
    Short(&'static str),
    /// A value that no writer writes.
    #[error("record has an impossible {0}")]
    Impossible(&'static str),
    /// Bytes after the last field.
    #[error("record has {0} bytes too many")]
    TooLong(usize),
}

/// Takes fields off the front of a record.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over a whole record.
    pub fn new(record: &'a [u8]) -> Self {
        Self { rest: record }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`EncodingError::Short`], naming `what`.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], EncodingError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(EncodingError::Short(what))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], EncodingError> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as taken"))
    }

    /// One byte.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, EncodingError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, EncodingError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, EncodingError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn i64(&mut self, what: &'static str) -> Result<i64, EncodingError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// A digest.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn digest(&mut self, what: &'static str) -> Result<[u8; 32], EncodingError> {
        self.array(what)
    }

    /// Bytes with their length before them.
    ///
    /// # Errors
    /// [`EncodingError::Short`].
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], EncodingError> {
        let n = self.u32(what)? as usize;
        self.take(n, what)
    }

    /// UTF-8 with its length before it.
    ///
    /// # Errors
    /// [`EncodingError`].
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, EncodingError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| EncodingError::Impossible(what))
    }

    /// A yes or no, and what a yes brings.
    ///
    /// # Errors
    /// [`EncodingError`].
    pub fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, EncodingError>,
    ) -> Result<Option<T>, EncodingError> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(EncodingError::Impossible(what)),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`EncodingError::TooLong`].
    pub fn end(self) -> Result<(), EncodingError> {
        if self.rest.is_empty() { Ok(()) } else { Err(EncodingError::TooLong(self.rest.len())) }
    }
}

/// Puts bytes with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Puts a yes or no, and what a yes brings.
pub fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(v) = value {
        put(out, v);
    }
}
