package ca

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

const (
	// externalTimeout bounds one request to an external CA: a node waits for the answer.
	externalTimeout = 5 * time.Second
	// signPath is where cfssl's API signs.
	signPath = "/api/v1/cfssl/sign"
	// maxAnswer in bytes bounds an answer of an external CA; one has some 2,000.
	maxAnswer = 64 << 10
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
	client *http.Client
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
	// No proxy, as between nodes; and a connection for each signature, with the certificate that this manager has then.
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	return &External{address, &http.Client{Transport: transport, Timeout: externalTimeout, CheckRedirect: noRedirect}}, nil
}

// noRedirect follows nobody elsewhere: whom to ask is what the swarm was told.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// CheckExternalURL returns ErrExternal unless text is a URL at which there can be an external CA.
func CheckExternalURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%w: its URL must be https://HOST:PORT", ErrExternal)
	}
	return nil
}

// externalRequest is a request for a signature, as cfssl's API has it (doc/api/endpoint_sign.txt there).
type externalRequest struct {
	Hosts   []string         `json:"hosts,omitempty"`
	Request string           `json:"certificate_request"`
	Subject *externalSubject `json:"subject,omitempty"`
	Profile string           `json:"profile,omitempty"`
}

type externalSubject struct {
	CommonName string         `json:"CN"`
	Names      []externalName `json:"names"`
}

type externalName struct {
	Organization string `json:"O,omitempty"`
	Unit         string `json:"OU,omitempty"`
}

// externalAnswer is what comes back, whatever the status of HTTP.
type externalAnswer struct {
	Success bool `json:"success"`
	Result  struct {
		Certificate string `json:"certificate"`
	} `json:"result"`
	Errors []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// sign asks for a certificate. What comes back is not believed: see lint.
func (e *External) sign(csr []byte, d decided) ([]byte, error) {
	subject := &externalSubject{CommonName: d.subject.CommonName}
	if len(d.subject.Organization) > 0 {
		subject.Names = []externalName{{d.subject.Organization[0], d.subject.OrganizationalUnit[0]}}
	}
	hosts := append(slices.Clone(d.dnsNames), d.uri.String())
	return e.ask(externalRequest{Hosts: hosts, Request: string(encodePEM(csrType, csr)), Subject: subject, Profile: d.profile})
}

// ask asks for one signature.
func (e *External) ask(request externalRequest) ([]byte, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", e.url, err)
	}
	response, err := e.client.Post(e.url+signPath, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExternal, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrExternal, e.url, err)
	}
	var answer externalAnswer
	switch err := json.Unmarshal(text, &answer); {
	case err != nil:
		return nil, fmt.Errorf("%w: %s does not answer as cfssl does: %s", ErrExternal, e.url, response.Status)
	case !answer.Success && len(answer.Errors) > 0:
		return nil, fmt.Errorf("%w: %s: %.200q (error %d)", ErrExternal, e.url, answer.Errors[0].Message, answer.Errors[0].Code)
	case !answer.Success:
		return nil, fmt.Errorf("%w: %s did not sign, and does not say why: %s", ErrExternal, e.url, response.Status)
	}
	return []byte(answer.Result.Certificate), nil
}
