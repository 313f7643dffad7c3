//! An app in another language verifies who called, with the few lines that `docs/client-library.md` gives.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use warifu_tests::{
    mesh::{MTLS_AND_JWT, Mesh, ORDERS},
    peers::{self, Ended},
};

/// Calls `caller` of the document with the arguments that come as JSON.
const MAIN: &str = "
import json, sys
method, target, contexts, key_file = json.load(sys.stdin)
print(json.dumps(caller(method, target, contexts, key_file)))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_verifier_accepts_our_context_and_no_other() {
    // Made on first use, which may take longer than a context lives.
    interpreter().await;
    let mesh = Mesh::start().await;
    let app = mesh.app_over_tcp("payments").await;
    let payments = mesh.agent("payments").app(&app);
    let payments = payments.accept(MTLS_AND_JWT).allow(ORDERS).start().await;
    let route = "jwt: {audience: payments}";
    let orders = mesh.agent("orders").route_to("payments", &payments, route);
    let orders = orders.start().await;
    let (method, target) = ("GET", "/charges?page=2&q=%20");
    let url = format!("http://payments{target}");
    let answer = orders.client().get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    let seen = app.last();
    let context = seen.headers["x-warifu-context"].to_str().unwrap();
    let key_file = context_key_file(&app.forward());
    let ask = |method: &str, target: &str, contexts: Value| {
        python(json!([method, target, contexts, key_file]))
    };
    let caller = ask(method, target, json!([context])).await.json();
    let expected = serde_json::to_value(seen.caller.as_ref().unwrap()).unwrap();
    assert_eq!(caller, expected);
    assert_eq!(caller["peer"]["spiffe_id"], "spiffe://example.org/orders");

    let forged = context.replace('.', "A.");
    for (method, target, contexts) in [
        ("POST", target, json!([context])),
        (method, "/charges?page=3&q=%20", json!([context])),
        (method, "/charges", json!([context])),
        (method, target, json!([context, context])),
        (method, target, json!([])),
        (method, target, json!([forged])),
    ] {
        let ended = ask(method, target, contexts).await;
        assert!(!ended.success, "{}", ended.stdout);
        assert!(ended.stderr.contains("Error"), "{}", ended.stderr);
    }
}

async fn python(arguments: Value) -> Ended {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/client-library.md");
    let document = std::fs::read_to_string(document).unwrap();
    let code = document.split("```python\n").nth(1).unwrap();
    let code = format!("{}{MAIN}", code.split("```").next().unwrap());
    let input = arguments.to_string();
    peers::run("python", &interpreter().await, &["-c", &code], input)
        .await
        .unwrap()
}

async fn interpreter() -> PathBuf {
    let made = tokio::task::spawn_blocking(peers::python);
    made.await.unwrap().unwrap()
}

/// From `forward: "…", context: {key_file: "…"}`.
fn context_key_file(forward: &str) -> String {
    let file = forward.split("key_file: \"").nth(1).unwrap();
    file.split('"').next().unwrap().to_owned()
}
