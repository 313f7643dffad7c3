//! The files as JSON Schemas, for editors. Generated from the types; `docs/schema` holds a copy.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::{AgentConfig, AuthorityConfig, cases::Cases};

/// The JSON Schema (draft 2020-12) of `agent.yaml`, pretty-printed.
pub fn agent() -> String {
    text::<AgentConfig>()
}

/// The JSON Schema (draft 2020-12) of `authority.yaml`, pretty-printed.
pub fn authority() -> String {
    text::<AuthorityConfig>()
}

/// The JSON Schema (draft 2020-12) of a file of `warifu policy test`, pretty-printed.
pub fn policy_test() -> String {
    text::<Cases>()
}

/// For a default that depends on the machine, or that the file writes in another form.
pub(super) fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

fn text<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>();
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// `WARIFU_UPDATE_SCHEMA=1 cargo test -p warifu-agent schema` writes them.
    #[test]
    fn the_schemas_in_docs_are_up_to_date() {
        for (file, now) in [
            ("agent.schema.json", agent()),
            ("authority.schema.json", authority()),
            ("policy-test.schema.json", policy_test()),
        ] {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../docs/schema")
                .join(file);
            if std::env::var_os("WARIFU_UPDATE_SCHEMA").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &now).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == now,
                "docs/schema/{file} is out of date; run this test with WARIFU_UPDATE_SCHEMA=1"
            );
        }
    }
}
