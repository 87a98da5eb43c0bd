package ca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/cloudflare/cfssl/api/client"
	"github.com/cloudflare/cfssl/signer"
)

const (
	// externalTimeout bounds one request to an external CA: a node waits for the answer.
	externalTimeout = 5 * time.Second
	// crossProfile is the profile of an external CA that signs the next root, as Docker Swarm's.
	crossProfile = "CA"
	// userProfile is the profile of an external CA that signs for people: client auth is their only purpose. Nodes have its default.
	userProfile = "user"
	// workloadProfile is the profile of an external CA that signs for tasks: as for nodes, but for an hour.
	workloadProfile = "workload"
)

// External is a CA outside of the swarm that speaks cfssl's API and has the key of a root.
type External struct {
	url    string
	remote client.Remote
}

// NewExternal returns the external CA at a URL, https://host:port, whose own certificate must be by root. Id is who asks, for one that
// wants to know its clients, or nil. It connects when it is used. It returns ErrExternal for a URL that is none.
func NewExternal(address string, root *x509.Certificate, id *Identity) (*External, error) {
	if err := CheckExternalURL(address); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: poolOf([]*x509.Certificate{root})}
	if id != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _ := id.tlsCertificate()
			return cert, nil
		}
	}
	remote := client.NewServerTLS(address, config)
	remote.SetRequestTimeout(externalTimeout)
	remote.SetProxy(func(*http.Request) (*url.URL, error) { return nil, nil }) //nolint:nilnil // no proxy, as between nodes
	return &External{address, remote}, nil
}

// CheckExternalURL returns ErrExternal unless text is a URL at which there can be an external CA.
func CheckExternalURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%w: its URL must be https://HOST:PORT", ErrExternal)
	}
	return nil
}

// sign asks for one signature. What comes back is not believed: see lint.
func (e *External) sign(request signer.SignRequest) ([]byte, error) {
	body, err := json.Marshal(struct {
		Hosts   []string        `json:"hosts,omitempty"`
		Request string          `json:"certificate_request"`
		Subject *signer.Subject `json:"subject,omitempty"`
		Profile string          `json:"profile,omitempty"`
	}{request.Hosts, request.Request, request.Subject, request.Profile})
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", e.url, err)
	}
	signed, err := e.remote.Sign(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrExternal, e.url, err)
	}
	return signed, nil
}
