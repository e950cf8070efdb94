//! What grpcurl and its like learn from the check listener.

use prost::Message as _;
use tonic_reflection::pb::{v1, v1alpha};

use super::*;

/// The types that reflection tells of.
#[expect(clippy::all, reason = "generated")]
mod told {
    include!(concat!(env!("OUT_DIR"), "/authorization.rs"));
}

fn question_v1(symbol: &str) -> v1::ServerReflectionRequest {
    use v1::server_reflection_request::MessageRequest;
    let wanted = Some(MessageRequest::FileContainingSymbol(symbol.to_owned()));
    v1::ServerReflectionRequest { host: String::new(), message_request: wanted }
}

#[tokio::test]
async fn reflection_tells_of_the_check_and_of_health() {
    let gate = Gate::start().await;
    let channel = Channel::from_shared(format!("http://{}", gate.running.addresses.check));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    for (symbol, file) in [
        ("envoy.service.auth.v3.Authorization", "envoy/service/auth/v3/external_auth.proto"),
        ("envoy.service.auth.v3.AttributeContext", "envoy/service/auth/v3/attribute_context.proto"),
        ("envoy.config.core.v3.HeaderValueOption", "envoy/config/core/v3/base.proto"),
        ("google.protobuf.Struct", "google/protobuf/struct.proto"),
        ("grpc.health.v1.Health", "health.proto"),
    ] {
        let questions = tokio_stream::iter([question_v1(symbol)]);
        let answers = client.server_reflection_info(questions).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
        let Some(FileDescriptorResponse(found)) = answer.message_response else {
            panic!("{symbol}: {answer:?}")
        };
        let found = &found.file_descriptor_proto[0];
        let found = prost_types::FileDescriptorProto::decode(&found[..]).unwrap();
        assert_eq!(found.name(), file, "{symbol}");
    }

    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest::ListServices;
    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("envoy.service.auth.v3.Authorization"), "{answer:?}");
}

#[test]
fn names_and_numbers_are_envoys() {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::service::auth::v3 as envoy;
    use envoy_types::pb::envoy::r#type::v3 as kind;
    use envoy_types::pb::google::protobuf::BoolValue;
    use told::envoy::service::auth::v3 as ours;

    let text = |number: usize| format!("text {number}");
    let peer = envoy::attribute_context::Peer {
        service: text(1),
        labels: [(text(2), text(3))].into(),
        principal: text(4),
        certificate: text(5),
        ..Default::default()
    };
    let header = core::HeaderValue { key: text(6), value: text(7), raw_value: vec![8] };
    let http = HttpRequest {
        id: text(10),
        method: text(11),
        headers: [(text(12), text(13))].into(),
        path: text(14),
        host: text(15),
        scheme: text(16),
        query: text(17),
        fragment: text(18),
        size: 19,
        protocol: text(20),
        body: text(21),
        raw_body: vec![22],
        header_map: Some(core::HeaderMap { headers: vec![header.clone()] }),
    };
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer),
            request: Some(Request { http: Some(http), ..Default::default() }),
            context_extensions: [(text(23), text(24))].into(),
            ..Default::default()
        }),
    };
    let read = ours::CheckRequest::decode(&request.encode_to_vec()[..]).unwrap();
    let attributes = read.attributes.clone().unwrap();
    let peer = attributes.source.unwrap();
    assert_eq!((peer.service, peer.principal, peer.certificate), (text(1), text(4), text(5)));
    assert_eq!(
        (&peer.labels[&text(2)], &attributes.context_extensions[&text(23)]),
        (&text(3), &text(24))
    );
    let http = attributes.request.unwrap().http.unwrap();
    let texts = [
        (http.id, 10),
        (http.method, 11),
        (http.headers[&text(12)].clone(), 13),
        (http.path, 14),
        (http.host, 15),
        (http.scheme, 16),
        (http.query, 17),
        (http.fragment, 18),
        (http.protocol, 20),
        (http.body, 21),
        (http.header_map.unwrap().headers[0].value.clone(), 7),
    ];
    for (found, number) in texts {
        assert_eq!(found, text(number));
    }
    assert_eq!((http.size, http.raw_body), (19, vec![22]));
    // Nothing was left out on the way: what is known is all that was set.
    assert_eq!(CheckRequest::decode(&read.encode_to_vec()[..]).unwrap(), request);

    #[expect(deprecated, reason = "it is what we send")]
    let option = core::HeaderValueOption {
        header: Some(header),
        append: Some(BoolValue { value: true }),
        ..Default::default()
    };
    let denied = envoy::DeniedHttpResponse {
        status: Some(kind::HttpStatus { code: 403 }),
        headers: vec![option.clone()],
        body: text(30),
    };
    let ok = envoy::OkHttpResponse {
        headers: vec![option],
        headers_to_remove: vec![text(31)],
        ..Default::default()
    };
    for response in [HttpResponse::DeniedResponse(denied), HttpResponse::OkResponse(ok)] {
        let response = envoy::CheckResponse { http_response: Some(response), ..Default::default() };
        let read = ours::CheckResponse::decode(&response.encode_to_vec()[..]).unwrap();
        let again = envoy::CheckResponse::decode(&read.encode_to_vec()[..]).unwrap();
        assert_eq!(again, response);
    }
}
