package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/metrics"
)

const (
	// metricsPort is the port that Docker's documentation has for metrics.
	metricsPort = "9323"
	// maxScrapes bounds the scrapes at once: each one reads the statistics of all tasks.
	maxScrapes = 3
	// maxClients bounds the connections; a client that says nothing has one for headTimeout.
	maxClients = 64
	// scrapeTimeout bounds one scrape, and headTimeout the time that a client has for its request.
	scrapeTimeout = 10 * time.Second
	headTimeout   = 5 * time.Second
	// maxHead bounds the head of a request, in bytes.
	maxHead = 16 << 10
)

// metricsAddress reads --metrics-addr. Who can reach a loopback address is on this machine; everybody else has to prove who they are.
func metricsAddress(text string, people peopleConfig) (string, error) {
	if text == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, metricsPort
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("--metrics-addr %q: want ADDRESS[:PORT], such as 127.0.0.1:%s", text, metricsPort)
	}
	if !addr.IsLoopback() && people.Authorities == "" {
		return "", fmt.Errorf("--metrics-addr %s: an address that others can reach is served with mutual TLS only: "+
			"add --tlsverify, --tlscacert, --tlscert and --tlskey, or use 127.0.0.1", text)
	}
	return net.JoinHostPort(addr.String(), port), nil
}

// listenMetrics opens the address for metrics, or returns nil if there is none.
func (d *Daemon) listenMetrics() (net.Listener, error) {
	address := d.cfg.MetricsAddress
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Precondition, "listen for metrics: %w: free the address, or give another --metrics-addr", err)
	}
	host, _, _ := net.SplitHostPort(address) // metricsAddress made it
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		return netutil.LimitListener(listener, maxClients), nil
	}
	cert, pool, err := d.cfg.People.load()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	config := ca.ExternalPeopleTLS(cert, pool)
	d.logger.Info("metrics are served to holders of a certificate of --tlscacert", "address", listener.Addr().String())
	return tls.NewListener(netutil.LimitListener(listener, maxClients), config), nil
}

// mayScrape returns an error for a certificate, which has been verified, of somebody whom the swarm does not know as a user, or has revoked.
// Only managers know users.
func (d *Daemon) mayScrape(cert *x509.Certificate) error {
	users := d.managed.userRecords()
	if users == nil {
		if i := d.identity(); i != nil && i.Role() == api.Role_ROLE_MANAGER {
			return errNotYet
		}
		return nil
	}
	record, known := users.User(cert.Subject.CommonName)
	if !known || record.Revoked || record.Fingerprint != "" {
		return fmt.Errorf("user %s is not known or was revoked", cert.Subject.CommonName)
	}
	return nil
}

// serveMetrics answers Prometheus until ctx ends; a nil listener is for nobody.
func (d *Daemon) serveMetrics(ctx context.Context, listener net.Listener) error {
	if listener == nil {
		return nil
	}
	server := &http.Server{
		Handler: d.metricsHandler(), ReadHeaderTimeout: headTimeout, ReadTimeout: headTimeout, WriteTimeout: scrapeTimeout + headTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHead, ErrorLog: slog.NewLogLogger(d.logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// onlyUsers refuses those who come by TLS and may not. It looks at each request, since a connection outlives what is decided about a user.
func (d *Daemon) onlyUsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			if err := d.mayScrape(r.TLS.PeerCertificates[0]); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// metricsHandler answers GET /metrics, and nothing else.
func (d *Daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), nodeCollector{d},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.onlyUsers(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: log.New(levelWriter{d.logger}, "", 0), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	})))
	return mux
}

// levelWriter logs what a library writes.
type levelWriter struct{ logger *slog.Logger }

// Write implements io.Writer.
func (w levelWriter) Write(text []byte) (int, error) {
	w.logger.Warn("metrics are not complete", "error", string(text))
	return len(text), nil
}

// nodeCollector shows the node of the moment. It describes nothing beforehand, since nodes come and go.
type nodeCollector struct{ d *Daemon }

// Describe implements prometheus.Collector.
func (nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name, help string, value float64, labels prometheus.Labels) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, labels), prometheus.GaugeValue, value)
	}
	gauge("skep_build_info", "The version of this daemon; always 1.", 1, prometheus.Labels{"version": c.d.cfg.Version})
	n, err := c.d.node()
	if err != nil {
		return // in no swarm
	}
	n.mu.Lock()
	a, s := n.agent, n.store
	n.mu.Unlock()
	hostname, err := os.Hostname()
	if err != nil {
		hostname = n.identity.NodeID()
	}
	ofNode := prometheus.Labels{"node": hostname}
	manages := 0.0
	if n.identity.Role() == api.Role_ROLE_MANAGER {
		manages = 1
	}
	gauge("skep_node_is_manager", "1 if this node is a manager.", manages, ofNode)
	gauge("skep_node_certificate_expiry_timestamp_seconds", "When this node's certificate expires, in seconds since 1970.",
		float64(n.identity.Expiry().Unix()), ofNode)
	if a != nil {
		for _, collector := range a.Metrics() {
			prometheus.WrapCollectorWith(ofNode, collector).Collect(ch)
		}
	}
	if s == nil {
		return
	}
	prometheus.WrapCollectorWith(ofNode, metrics.New(s)).Collect(ch)
	if size, err := sizeOf(c.d.disk.path(storeDir)); err == nil {
		gauge("skep_store_size_bytes", "What the store has on this manager's disk.", float64(size), ofNode)
	}
}

// sizeOf sums the sizes of the files below a directory.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) { // it was replaced meanwhile
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
