//! What is inside of lists, maps and structs, handed to serde one by one.

use serde::de::{DeserializeSeed, IntoDeserializer as _, MapAccess, SeqAccess};

use super::{At, Error, Node, identity, optional::NULL_IS_ON};

/// A list.
pub(super) struct Items<'a> {
    pub(super) at: At<'a>,
    pub(super) items: &'a [Node],
    pub(super) next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.items.get(self.next) {
            let key = self.next.to_string();
            self.next += 1;
            if !self.at.left_out(&key) {
                return self.at.child(&key, node, None, seed).map(Some);
            }
        }
        Ok(None)
    }
}

/// A map, or a struct with these fields.
pub(super) struct Entries<'a> {
    pub(super) at: At<'a>,
    pub(super) next: usize,
    pub(super) fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some((key, node)) = self.at.node.entries().get(self.next) {
            self.next += 1;
            if self.at.left_out(&key.name) {
                continue;
            }
            if let Some(fields) = self.fields {
                if !fields.contains(&key.name.as_str()) || key.name.ends_with(NULL_IS_ON) {
                    let place = key.place.clone();
                    self.at.run.unknown(self.at.below(&key.name), place, &key.name, fields);
                    continue;
                }
                let kept =
                    || self.at.run.kept.borrow().contains(&(identity(fields), key.name.clone()));
                let nothing = At { node, path: "", run: self.at.run, of: None }.is_nothing();
                if nothing && kept() {
                    continue;
                }
            }
            return seed.deserialize(key.name.as_str().into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.at.node.entries().get(self.next - 1) {
            Some((key, node)) => self.at.child(&key.name, node, self.fields, seed),
            None => Err(Error::new("a value without a key".to_owned())),
        }
    }
}
