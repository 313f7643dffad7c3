use super::*;

#[test]
fn what_cannot_be_signed_is_refused_in_the_file_and_not_at_the_first_request() {
    let route = |sigv4: &str| {
        format!(
            "{SMALL}outbound:\n  listen: unix:/o\n  routes:\n  - {{host: a, upstream: 'https://a', sigv4: {{{sigv4}}}}}\n"
        )
    };
    for (sigv4, field, what) in [
        ("service: s3express", "service", "sessions of its own"),
        ("service: Lambda", "service", "lower case"),
        (
            "service: s, signed_headers: [content-length]",
            "signed_headers[0]",
            "changes on its way",
        ),
        (
            "service: s, signed_headers: [x-id, x-amz-date]",
            "signed_headers[1]",
            "amz_headers",
        ),
        (
            "service: s, amz_headers: [x-amz-meta-*, x-amz-date]",
            "amz_headers[1]",
            "always removed",
        ),
        (
            "service: s, amz_headers: [x-tenant]",
            "amz_headers[0]",
            "always pass",
        ),
        (
            "service: s, region: eu-west-1, region_set: ['*']",
            "region_set",
            "exclude each other",
        ),
        (
            "service: s, unsigned_payload: true",
            "unsigned_payload",
            "only s3",
        ),
        (
            "service: s3, presign: {expires: 8d}",
            "presign.expires",
            "7d",
        ),
    ] {
        let field = format!("outbound.routes[0].sigv4.{field}");
        one(agent_errors(&route(sigv4)), 9, &field, what);
    }
}
