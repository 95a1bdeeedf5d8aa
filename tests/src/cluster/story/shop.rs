//! The workloads of the story: a web server that customers may reach by policy, an intruder, and a pod on the
//! host's network. The cluster has nothing that enforces policies.

use crate::cluster::BUSYBOX;

/// Address of the service that clients ask.
pub(super) const WEB: &str = "10.96.0.80";
/// How many pods there are.
pub(super) const PODS: usize = 4;

/// All of it, as a user applies it.
pub(super) fn manifest() -> String {
    let client = |name: &str, host: bool| {
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, shop: \"yes\"}}}}
    spec:
      hostNetwork: {host}
      terminationGracePeriodSeconds: 1
      containers:
      - name: {name}
        image: {BUSYBOX}
        command: [sh, -c, 'while true; do printf \"GET /sh HTTP/1.0\\r\\n\\r\\n\" | nc -w 2 {WEB} 8080 >/dev/null; sleep 1; done']
---"
        )
    };
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec:
  clusterIP: {WEB}
  selector: {{app: web}}
  ports: [{{port: 8080, targetPort: http}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web, shop: \"yes\"}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {BUSYBOX}
        command: [httpd, -f, -p, '8080', -h, /bin]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  policyTypes: [Ingress]
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: customer}}}}}}]
    ports: [{{port: http}}]
---{}{}{}
",
        client("customer", false),
        client("intruder", false),
        client("host", true)
    )
}
