package identity

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/skep-io/skep/internal/grpctest"
)

// source is what a service that uses go-spiffe has.
func (b *bench) source(t *testing.T, id string) *workloadapi.X509Source {
	t.Helper()
	s, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClient(b.client(t, b.provide(t, id))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// named returns the SPIFFE ID of a task of the tests.
func (b *bench) named(service string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://" + b.clusterID + "/service/" + service + "/task/1")
}

// meet has two services speak mutual TLS, and returns the server's certificate.
func meet(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	l := grpctest.Listen()
	defer l.Close() //nolint:errcheck // nothing was to be sent
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = tls.Server(conn, server).Handshake()
		}
		done <- err
	}()
	conn, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, client)
	if err := c.Handshake(); err != nil {
		_ = conn.Close()
		<-done
		return nil, err
	}
	if err := <-done; err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], conn.Close()
}

// TestServices_SpeakMutualTLSForDays is two services and go-spiffe, through renewals and a change of the root.
func TestServices_SpeakMutualTLSForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		db, web := b.source(t, "db"), b.source(t, "web")
		server := tlsconfig.MTLSServerConfig(db, db, tlsconfig.AuthorizeID(b.named("web")))
		client := tlsconfig.MTLSClientConfig(web, web, tlsconfig.AuthorizeID(b.named("db")))
		seen := map[string]bool{}
		for hour := range 48 {
			cert, err := meet(t, server, client)
			if err != nil {
				t.Fatalf("hour %d: %v", hour, err)
			}
			seen[cert.SerialNumber.String()] = true
			if hour == 24 {
				b.rotate(t)
			}
			<-time.After(time.Hour)
		}
		if len(seen) < 40 {
			t.Errorf("%d certificates in 48 hours", len(seen))
		}
		wrong := tlsconfig.MTLSClientConfig(db, db, tlsconfig.AuthorizeID(b.named("db")))
		if _, err := meet(t, server, wrong); err == nil {
			t.Error("the server takes another service for web")
		}
		elsewhere := tlsconfig.MTLSClientConfig(web, web, tlsconfig.AuthorizeID(b.named("mail")))
		if _, err := meet(t, server, elsewhere); err == nil {
			t.Error("the client takes db for mail")
		}
	})
}
