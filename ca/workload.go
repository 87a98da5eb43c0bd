package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// WorkloadLife is how long after its issue an X.509-SVID ends. It is short because nothing revokes one.
const WorkloadLife = time.Hour

// maxServiceName bounds a service's name in bytes, so that a SPIFFE ID stays below the 2,048 that every implementation takes.
const maxServiceName = 255

// emptySubject is the DER of a name without attributes.
var emptySubject = []byte{0x30, 0x00}

// Workload is whom an X.509-SVID names: one slot of a service.
type Workload struct {
	ClusterID string
	Service   string
	// Slot is 1 at least.
	Slot uint64
}

// Validate returns ErrBadName unless w can be written as a SPIFFE ID.
func (w Workload) Validate() error {
	switch {
	case !isID(w.ClusterID):
		return fmt.Errorf("%w: cluster ID", ErrBadName)
	case !isSegment(w.Service):
		return fmt.Errorf("%w: service %.80q", ErrBadName, w.Service)
	case w.Slot == 0:
		return fmt.Errorf("%w: slot", ErrBadName)
	default:
		return nil
	}
}

// isSegment reports whether s can be one element of a SPIFFE ID's path.
func isSegment(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > maxServiceName {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func (w Workload) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: w.ClusterID, Path: "/service/" + w.Service + "/task/" + strconv.FormatUint(w.Slot, 10)}
}

// SPIFFEID returns w as in spiffe://CLUSTER/service/NAME/task/SLOT.
func (w Workload) SPIFFEID() string { return w.uri().String() }

// parseWorkload is the inverse of uri.
func parseWorkload(u *url.URL) (Workload, error) {
	parts := strings.Split(u.Path, "/")
	if len(parts) != 5 || parts[1] != "service" || parts[3] != "task" {
		return Workload{}, fmt.Errorf("%w: not the SPIFFE ID of a task", ErrBadName)
	}
	slot, err := strconv.ParseUint(parts[4], 10, 64)
	if err != nil {
		return Workload{}, fmt.Errorf("%w: slot", ErrBadName)
	}
	w := Workload{ClusterID: u.Host, Service: parts[2], Slot: slot}
	if err := w.Validate(); err != nil {
		return Workload{}, err
	}
	if w.SPIFFEID() != u.String() { // a port, a query, a slot of "01"
		return Workload{}, fmt.Errorf("%w: SPIFFE ID", ErrBadName)
	}
	return w, nil
}

// WorkloadOf reads whom a certificate names that has been verified against a root. It returns ErrBadName unless the certificate
// is exactly of the shape that Root.IssueWorkload gives: the same root also signs nodes and people, who are no tasks.
func WorkloadOf(cert *x509.Certificate) (Workload, error) {
	if cert.IsCA || !bytes.Equal(cert.RawSubject, emptySubject) {
		return Workload{}, ErrBadName
	}
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return Workload{}, fmt.Errorf("%w: alternative names", ErrBadName)
	}
	return parseWorkload(cert.URIs[0])
}

// IssueWorkload signs an X.509-SVID for the public key in the CSR, which is PEM. It returns the chain as PEM, the task's
// certificate first. It returns ErrBadCSR, ErrBadName, ErrRootExpired or ErrExternal.
func (r *Root) IssueWorkload(now time.Time, csr []byte, w Workload) ([]byte, error) {
	der, key, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	if err := w.Validate(); err != nil {
		return nil, err
	}
	v, err := r.within(now, WorkloadLife)
	if err != nil {
		return nil, err
	}
	chain, err := r.sign(der, key, decided{uri: w.uri(), purposes: nodePurposes(), validity: v, profile: workloadProfile})
	if err != nil {
		return nil, err
	}
	if err := r.lintWorkload(chain, key, w, v); err != nil {
		return nil, fmt.Errorf("check signed SVID: %w", err)
	}
	return append(chain, EncodeBundle(r.cross)...), nil
}

// lintWorkload is lint for what is no node (C1).
func (r *Root) lintWorkload(chain []byte, key *ecdsa.PublicKey, want Workload, v validity) error {
	cert, err := r.lintShape(chain, key, v)
	if err != nil {
		return err
	}
	got, err := WorkloadOf(cert)
	switch {
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("%w: another workload", ErrBadName)
	case !clientAndServer(cert.ExtKeyUsage):
		return fmt.Errorf("%w: other purposes", ErrBadName)
	}
	return cert.CheckSignatureFrom(r.cert)
}
