//! How serde walks the tree: the deserializer proper, and what it hands out for lists, mappings and enums.

use serde::de::{
    self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::{BorrowedStrDeserializer, StringDeserializer},
};

use super::{Key, Node, Reader, Stop, Value};

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items {
                reader: &self,
                rest: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                reader: &self,
                rest: entries.iter(),
                fields: None,
                value: None,
            }),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Text {
                text,
                expanded: true,
            } => match text.parse() {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => self.wrong(&visitor),
            },
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Text {
                text,
                expanded: true,
            } => match text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => self.wrong(&visitor),
            },
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => self.wrong(&"a list ([a, b])"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => self.wrong(&"a mapping (key: value)"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Value::Map(entries) = &self.node.value else {
            let expected = format!("a mapping with the keys {}", fields.join(", "));
            return self.wrong(&expected.as_str());
        };
        self.check_keys(entries, fields);
        visitor.visit_map(Entries {
            reader: &self,
            rest: entries.iter(),
            fields: Some(fields),
            value: None,
        })
    }

    /// `variant`, or `variant: {…}` with one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let (name, content) = match &self.node.value {
            Value::Text { text, .. } => (text, None),
            Value::Map(entries) => match entries.as_slice() {
                [(key, content)] => (&key.text, Some(content)),
                _ => {
                    let expected = format!("exactly one of the keys {}", variants.join(", "));
                    let found = entries.iter().map(|(key, _)| key.text.as_str());
                    let found: Vec<_> = found.collect();
                    return Err(Stop::Wrong(format!(
                        "expected {expected}; found {}",
                        found.join(", ")
                    )));
                }
            },
            _ => return self.wrong(&format!("one of {}", variants.join(", ")).as_str()),
        };
        if !variants.contains(&name.as_str()) {
            return Err(de::Error::unknown_variant(name, variants));
        }
        visitor.visit_enum(Variant {
            reader: &self,
            name,
            content,
        })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }
}

struct Items<'r, 'de> {
    reader: &'r Reader<'de>,
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        for (index, item) in self.rest.by_ref() {
            if !self.reader.shared.is_left_out(item) {
                let reader = self.reader.at(item, self.reader.path.index(index));
                return reader.seed(seed).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'r, 'de> {
    reader: &'r Reader<'de>,
    rest: std::slice::Iter<'de, (Key, Node)>,
    /// Of a struct; other keys were noted, and are passed over.
    fields: Option<&'static [&'static str]>,
    value: Option<(&'de Key, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        for (key, value) in self.rest.by_ref() {
            let known = self
                .fields
                .is_none_or(|fields| fields.contains(&key.text.as_str()));
            if known && !self.reader.shared.is_left_out(value) {
                self.value = Some((key, value));
                return seed
                    .deserialize(BorrowedStrDeserializer::new(&key.text))
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let Some((key, value)) = self.value.take() else {
            return Err(Stop::Wrong("a value without a key".to_owned()));
        };
        let reader = self.reader.at(value, self.reader.path.key(&key.text));
        reader.seed(seed)
    }
}

struct Variant<'r, 'de> {
    reader: &'r Reader<'de>,
    name: &'de String,
    content: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let name: StringDeserializer<Stop> =
            de::IntoDeserializer::into_deserializer(self.name.clone());
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Variant<'_, 'de> {
    fn content(&self) -> Result<Reader<'de>, Stop> {
        let Some(content) = self.content else {
            return Err(Stop::Wrong(format!(
                "{:?} needs its settings: write {{{}: {{…}}}}",
                self.name, self.name
            )));
        };
        if self.reader.shared.is_left_out(content) {
            return Err(Stop::Wrong("left out".to_owned()));
        }
        Ok(self.reader.at(content, self.reader.path.key(self.name)))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Stop::Wrong(format!(
                "{:?} has no settings: write it alone",
                self.name
            ))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.content()?.seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        let content = self.content()?;
        let result = de::Deserializer::deserialize_seq(content.again(), visitor);
        content.note(result)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let content = self.content()?;
        let result =
            de::Deserializer::deserialize_struct(content.again(), "variant", fields, visitor);
        content.note(result)
    }
}
