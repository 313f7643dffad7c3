//! The agent's gRPC code is what its `.proto` files say. It is checked in, so that building the agent takes no
//! generator. After a change of a `.proto` file:
//!
//! ```text
//! WARIFU_UPDATE_PROTO=1 cargo test -p warifu-tests generated_code
//! ```

use std::{collections::BTreeMap, fs, path::Path};

/// What is served, with all it is made of, and where in the agent.
const SERVED: [Served; 2] = [
    Served {
        by: "local",
        files: &["workload.proto", "envoy/service/secret/v3/sds.proto"],
        descriptors: Some("descriptors.bin"),
    },
    Served {
        by: "inbound/ext_authz",
        files: &["envoy/service/auth/v3/external_auth.proto"],
        descriptors: None,
    },
];

struct Served {
    by: &'static str,
    files: &'static [&'static str],
    /// The files' descriptors, for server reflection.
    descriptors: Option<&'static str>,
}

#[test]
fn generated_code_is_what_the_proto_files_say() {
    SERVED.iter().for_each(is_up_to_date);
}

fn is_up_to_date(served: &Served) {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent");
    let fresh = generate(&agent.join("proto"), served);
    let checked_in = agent.join("src").join(served.by).join("generated");
    if std::env::var_os("WARIFU_UPDATE_PROTO").is_some() {
        fs::create_dir_all(&checked_in).unwrap();
        for (name, content) in &fresh {
            fs::write(checked_in.join(name), content).unwrap();
        }
    }
    assert_eq!(
        read(&checked_in).keys().collect::<Vec<_>>(),
        fresh.keys().collect::<Vec<_>>()
    );
    for (name, content) in read(&checked_in) {
        assert!(
            fresh[&name] == content,
            "agent/src/{}/generated/{name} is not what agent/proto makes; the top of this file says how to make it anew",
            served.by
        );
    }
}

fn generate(protos: &Path, served: &Served) -> BTreeMap<String, Vec<u8>> {
    let descriptors = protox::compile(served.files, [protos]).expect("the .proto files are sound");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .bytes(".")
        // In order, so that the same content is the same bytes.
        .btree_map(".X509SVIDResponse")
        .btree_map(".X509BundlesResponse")
        .btree_map(".JWTBundlesResponse")
        .compile_fds(descriptors.clone())
        .expect("code can be made of them");
    let mut files = read(out.path());
    if let Some(name) = served.descriptors {
        let mut bytes = Vec::new();
        prost::Message::encode(&descriptors, &mut bytes).unwrap();
        files.insert(name.to_owned(), bytes);
    }
    files
}

fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = files.map(|file| {
        let name = file.file_name().into_string().unwrap();
        (name, fs::read(file.path()).unwrap())
    });
    files.collect()
}
