//! Writes what serde describes as JSON the way protobuf's mapping wants it, and so the Collector: a
//! field without a value is left out instead of being `null`, which the Collector refuses; an empty
//! list too; and a double that is no number is text, for which JSON has no other word.

use serde::{
    Serialize, Serializer,
    ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct},
};
use serde_json::{Error, Result};

/// Writes one value.
pub struct Writer<'a>(pub &'a mut Vec<u8>);

/// A list or a map that is being written.
pub struct Open<'a> {
    text: &'a mut Vec<u8>,
    /// Where the field that is being written begins, with its comma and its name.
    field: usize,
    /// Where its value begins.
    value: usize,
    empty: bool,
    close: u8,
}

impl<'a> Open<'a> {
    fn new(text: &'a mut Vec<u8>, open: u8, close: u8) -> Self {
        text.push(open);
        Self { text, field: 0, value: 0, empty: true, close }
    }

    fn comma(&mut self) {
        self.field = self.text.len();
        if !self.empty {
            self.text.push(b',');
        }
    }

    fn name<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<()> {
        self.comma();
        name.serialize(Writer(self.text))?;
        self.text.push(b':');
        self.value = self.text.len();
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(Writer(self.text))?;
        if matches!(&self.text[self.value..], b"null" | b"[]") {
            self.text.truncate(self.field);
        } else {
            self.empty = false;
        }
        Ok(())
    }

    fn close(self) {
        self.text.push(self.close);
    }
}

macro_rules! plain {
    ($($method:ident $type:ty;)*) => {$(
        fn $method(self, value: $type) -> Result<()> {
            serde_json::to_writer(self.0, &value)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    // OTLP has none of these.
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    plain! {
        serialize_bool bool;
        serialize_i8 i8;
        serialize_i16 i16;
        serialize_i32 i32;
        serialize_i64 i64;
        serialize_u8 u8;
        serialize_u16 u16;
        serialize_u32 u32;
        serialize_u64 u64;
        serialize_char char;
        serialize_str &str;
        serialize_bytes &[u8];
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        match value {
            _ if value.is_nan() => self.serialize_str("NaN"),
            f64::INFINITY => self.serialize_str("Infinity"),
            f64::NEG_INFINITY => self.serialize_str("-Infinity"),
            _ => serde_json::to_writer(self.0, &value),
        }
    }
    fn serialize_f32(self, value: f32) -> Result<()> {
        self.serialize_f64(value.into())
    }
    fn serialize_none(self) -> Result<()> {
        serde_json::to_writer(self.0, &())
    }
    fn serialize_unit(self) -> Result<()> {
        self.serialize_none()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_none()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let mut map = Open::new(self.0, b'{', b'}');
        map.name(variant)?;
        value.serialize(Writer(map.text))?;
        map.close();
        Ok(())
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>> {
        Ok(Open::new(self.0, b'[', b']'))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a>> {
        Ok(Open::new(self.0, b'{', b'}'))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>> {
        Ok(Open::new(self.0, b'{', b'}'))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(unknown())
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct> {
        Err(unknown())
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(unknown())
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(unknown())
    }
}

fn unknown() -> Error {
    Error::custom("a kind of value that OTLP does not have")
}

impl SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.comma();
        self.empty = false;
        value.serialize(Writer(self.text))
    }
    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.name(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.value(value)
    }
    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<()> {
        self.name(name)?;
        self.value(value)
    }
    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}
