import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.X509Source;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.stream.Collectors;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;

/**
 * java-spiffe as a peer of the tests: takes sources from the Workload API, serves mTLS with them, and does what it is
 * asked over HTTP, as the Go peer does (`tests/peers/go/workload.go`).
 *
 * <p>Arguments: the Workload API's socket (unix:/path), where to write the address it listens on, the trust domain.
 */
public final class Peer {
    private static final int TIMEOUT_MS = 30_000;
    /** A logger that nobody holds is forgotten, with its handlers. */
    private static final Logger SPIFFE = Logger.getLogger("io.spiffe");

    private final String socket;
    private final AtomicInteger failures = new AtomicInteger();
    private volatile String said = "";
    private volatile String ended = "";
    private volatile X509Source x509;
    private volatile JwtSource jwt;
    private volatile String serves = "";

    private Peer(String socket) {
        this.socket = socket;
    }

    public static void main(String[] args) throws Exception {
        Peer peer = new Peer(args[0]);
        peer.watchTheLog();
        Thread obtain = new Thread(peer::obtain);
        obtain.setDaemon(true);
        obtain.start();

        HttpServer control = HttpServer.create(loopback(), 0);
        control.createContext("/state", respond(query -> peer.state()));
        control.createContext("/call", respond(peer::call));
        control.createContext("/token", respond(peer::token));
        control.createContext("/bundle", respond(peer::bundle));
        control.setExecutor(Executors.newCachedThreadPool());
        control.start();
        Path file = Path.of(args[1]);
        Path draft = Path.of(args[1] + ".draft");
        Files.writeString(draft, "127.0.0.1:" + control.getAddress().getPort());
        Files.move(draft, file, StandardCopyOption.ATOMIC_MOVE);
    }

    /** java-spiffe says in its log that a call failed; there is no other way to know. */
    private void watchTheLog() {
        SPIFFE.addHandler(new Handler() {
            @Override
            public void publish(LogRecord record) {
                Throwable why = record.getThrown();
                boolean failed = why != null || record.getLevel().intValue() >= Level.WARNING.intValue();
                if (failed) {
                    failures.incrementAndGet();
                    said = record.getMessage() + (why == null ? "" : ": " + why);
                }
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        });
    }

    private void obtain() {
        try {
            var options = DefaultX509Source.X509SourceOptions.builder().spiffeSocketPath(socket).build();
            X509Source source = DefaultX509Source.newSource(options);
            serve(source);
            JwtSource tokens =
                    DefaultJwtSource.newSource(JwtSourceOptions.builder().spiffeSocketPath(socket).build());
            x509 = source;
            jwt = tokens;
        } catch (Exception why) {
            why.printStackTrace();
            ended = String.valueOf(why.getCause() == null ? why : why.getCause());
        }
    }

    /** Answers everybody of the trust domain with who they are. */
    private void serve(X509Source source) throws Exception {
        SSLContext context = SpiffeSslContextFactory.getSslContext(
                SslContextOptions.builder().x509Source(source).acceptAnySpiffeId().build());
        HttpsServer server = HttpsServer.create(loopback(), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context) {
            @Override
            public void configure(HttpsParameters parameters) {
                SSLParameters tls = getSSLContext().getDefaultSSLParameters();
                tls.setNeedClientAuth(true);
                parameters.setSSLParameters(tls);
            }
        });
        server.createContext("/", exchange -> {
            Map<String, Object> told = new LinkedHashMap<>();
            X509Certificate caller = leaf(((HttpsExchange) exchange).getSSLSession().getPeerCertificates());
            told.put("peer", id(caller));
            answer(exchange, 200, json(told));
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        serves = "127.0.0.1:" + server.getAddress().getPort();
    }

    private Object state() {
        Map<String, Object> state = new LinkedHashMap<>();
        state.put("failures", failures.get());
        state.put("said", said);
        state.put("ended", ended);
        state.put("ready", jwt != null);
        if (jwt != null) {
            X509Certificate leaf = x509.getX509Svid().getLeaf();
            state.put("id", x509.getX509Svid().getSpiffeId().toString());
            state.put("serial", leaf.getSerialNumber().toString(16));
            state.put("serves", serves);
        }
        return state;
    }

    private Object call(Map<String, String> query) throws Exception {
        SpiffeId expect = SpiffeId.parse(query.get("expect"));
        // A context of its own, so that no session of an earlier call is resumed.
        SSLContext context = SpiffeSslContextFactory.getSslContext(SslContextOptions.builder()
                .x509Source(had(x509))
                .acceptedSpiffeIdsSupplier(() -> Set.of(expect))
                .build());
        var connection = (HttpsURLConnection) URI.create(query.get("url")).toURL().openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        // Who it must be is said by its SPIFFE ID.
        connection.setHostnameVerifier((host, session) -> true);
        connection.setConnectTimeout(TIMEOUT_MS);
        connection.setReadTimeout(TIMEOUT_MS);
        connection.setRequestProperty("Connection", "close");
        try (var body = connection.getInputStream()) {
            String told = new String(body.readAllBytes(), StandardCharsets.UTF_8);
            X509Certificate server = leaf(connection.getServerCertificates());
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("server", server.getSerialNumber().toString(16) + " " + id(server));
            answer.put("told", new Raw(told));
            return answer;
        }
    }

    private Object token(Map<String, String> query) throws Exception {
        String audience = query.get("audience");
        JwtSvid token = had(jwt).fetchJwtSvid(audience);
        JwtSvid valid = JwtSvid.parseAndValidate(token.getToken(), jwt, Set.of(audience));
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("subject", valid.getSpiffeId().toString());
        answer.put("audience", valid.getAudience());
        return answer;
    }

    private Object bundle(Map<String, String> query) throws Exception {
        TrustDomain trustDomain = TrustDomain.parse(query.get("trust_domain"));
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("roots", had(x509).getBundleForTrustDomain(trustDomain).getX509Authorities().size());
        answer.put("keys", had(jwt).getBundleForTrustDomain(trustDomain).getJwtAuthorities().size());
        return answer;
    }

    private <T> T had(T source) {
        if (source == null) {
            throw new IllegalStateException("no sources yet: " + said);
        }
        return source;
    }

    private static InetSocketAddress loopback() {
        return new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
    }

    private static X509Certificate leaf(Certificate[] chain) {
        return (X509Certificate) chain[0];
    }

    private static String id(X509Certificate certificate) {
        try {
            return certificate.getSubjectAlternativeNames().stream()
                    .filter(name -> name.get(0).equals(6))
                    .map(name -> (String) name.get(1))
                    .collect(Collectors.joining(","));
        } catch (Exception why) {
            throw new IllegalArgumentException(why);
        }
    }

    private interface Ask {
        Object of(Map<String, String> query) throws Exception;
    }

    private static com.sun.net.httpserver.HttpHandler respond(Ask ask) {
        return exchange -> {
            try {
                answer(exchange, 200, json(ask.of(query(exchange))));
            } catch (Exception why) {
                why.printStackTrace();
                answer(exchange, 503, String.valueOf(why));
            }
        };
    }

    private static Map<String, String> query(HttpExchange exchange) {
        Map<String, String> query = new LinkedHashMap<>();
        String raw = exchange.getRequestURI().getRawQuery();
        for (String pair : raw == null ? new String[0] : raw.split("&")) {
            String[] parts = pair.split("=", 2);
            query.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
        }
        return query;
    }

    private static void answer(HttpExchange exchange, int status, String text) throws IOException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, bytes.length);
        try (var body = exchange.getResponseBody()) {
            body.write(bytes);
        }
    }

    /** JSON that is JSON already. */
    private record Raw(String text) {}

    private static String json(Object value) {
        if (value instanceof Raw raw) {
            return raw.text();
        }
        if (value instanceof Map<?, ?> map) {
            return map.entrySet().stream()
                    .map(entry -> json(entry.getKey()) + ":" + json(entry.getValue()))
                    .collect(Collectors.joining(",", "{", "}"));
        }
        if (value instanceof Collection<?> list) {
            return list.stream().map(Peer::json).collect(Collectors.joining(",", "[", "]"));
        }
        if (value instanceof Number || value instanceof Boolean) {
            return String.valueOf(value);
        }
        String text = String.valueOf(value).replace("\\", "\\\\").replace("\"", "\\\"");
        return '"' + text.chars().mapToObj(Peer::escaped).collect(Collectors.joining()) + '"';
    }

    private static String escaped(int c) {
        return c < ' ' ? String.format("\\u%04x", c) : String.valueOf((char) c);
    }
}
