package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
)

// peoplePort is Docker's for TLS.
const peoplePort = 2376

// peopleConfig says where users may come over TCP, and who vouches for them.
type peopleConfig struct {
	// Hosts are host:port to listen on; none is on the unix socket only.
	Hosts []string
	// Authorities, Cert and Key are files: the CA of users and what shows them who this is, or all empty for the swarm's CA and the
	// certificate of this node.
	Authorities, Cert, Key string
}

// peopleFlags are the command line's form of a peopleConfig, with Docker's names.
type peopleFlags struct {
	hosts             []string
	verify            bool
	cacert, cert, key string
}

// parse checks the flags. Metrics says whether there is another door that they may be for.
func (f peopleFlags) parse(metrics bool) (peopleConfig, error) {
	cfg := peopleConfig{Authorities: f.cacert, Cert: f.cert, Key: f.key}
	var errs []error
	for _, host := range f.hosts {
		address, err := peopleAddress(host)
		errs = append(errs, err)
		cfg.Hosts = append(cfg.Hosts, address)
	}
	if len(f.hosts) > 0 && !f.verify {
		errs = append(errs, errors.New("--host: users are served over TCP with mutual TLS only: add --tlsverify"))
	}
	given := 0
	for _, file := range []string{f.cacert, f.cert, f.key} {
		if file != "" {
			given++
		}
	}
	if given != 0 && given != 3 {
		errs = append(errs, errors.New("--tlscacert, --tlscert and --tlskey go together; without all of them the swarm's CA vouches for users"))
	}
	if given > 0 && !f.verify {
		errs = append(errs, errors.New("--tlscacert, --tlscert and --tlskey need --tlsverify"))
	}
	if len(f.hosts) == 0 && !(metrics && given > 0) && (f.verify || given > 0) {
		errs = append(errs, errors.New("--tlsverify and its files need a --host tcp://ADDRESS to listen on"))
	}
	return cfg, errors.Join(errs...)
}

// peopleAddress returns host:port of tcp://HOST[:PORT].
func peopleAddress(host string) (string, error) {
	address, ok := strings.CutPrefix(host, "tcp://")
	if !ok || address == "" || strings.ContainsAny(address, "/@") {
		return "", fmt.Errorf("--host %q: want tcp://ADDRESS[:PORT]; --socket is for the unix socket", host)
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address, nil
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(peoplePort)), nil
}

// peopleCredentials returns what lets users in.
func (d *Daemon) peopleCredentials() (credentials.TransportCredentials, error) {
	cfg := d.cfg.People
	if cfg.Authorities == "" {
		return d.people.Credentials(introducing{ca.PeopleCredentials(ca.PeopleTLS(d.identity))}, false), nil
	}
	cert, pool, err := cfg.load()
	if err != nil {
		return nil, err
	}
	return d.people.Credentials(introducing{ca.PeopleCredentials(ca.ExternalPeopleTLS(cert, pool))}, true), nil
}

// load reads the files.
func (c peopleConfig) load() (cert tls.Certificate, pool *x509.CertPool, err error) {
	if cert, err = tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return cert, nil, fault.New(fault.Invalid, "--tlscert %s, --tlskey %s: %w", c.Cert, c.Key, err)
	}
	text, err := os.ReadFile(c.Authorities)
	if err != nil {
		return cert, nil, fault.New(fault.Invalid, "--tlscacert: %w", err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return cert, nil, fault.New(fault.Invalid, "--tlscacert %s: no certificate in it", c.Authorities)
	}
	return cert, pool, nil
}

// listenPeople opens the addresses for users, or none of them.
func (d *Daemon) listenPeople() (listeners []net.Listener, err error) {
	for _, host := range d.cfg.People.Hosts {
		var listener net.Listener
		address, err := listenAddress(host)
		if err == nil {
			listener, err = net.Listen("tcp", address)
		}
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			return nil, fault.New(fault.Precondition, "listen for users: %w: free the address, or give another --host", err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// identity returns the present node's, or nil.
func (d *Daemon) identity() *ca.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return nil
	}
	return d.current.identity
}

// addresses are where users of the swarm's CA find this daemon, given the address that other nodes are told.
func (c peopleConfig) addresses(advertised string) (hosts []string) {
	if c.Authorities != "" {
		return nil
	}
	own, _, err := net.SplitHostPort(advertised)
	for _, address := range c.Hosts {
		host, port, splitErr := net.SplitHostPort(address)
		if splitErr != nil {
			continue
		}
		addr, parseErr := netip.ParseAddr(host)
		if host == "" || parseErr == nil && addr.IsUnspecified() {
			if err != nil {
				continue // in no swarm: it has no address that it tells
			}
			host = own
		}
		hosts = append(hosts, "tcp://"+net.JoinHostPort(host, port))
	}
	return hosts
}

// errNoRecords is why a node that is no manager, or not yet, lets no user in.
var errNoRecords = errors.New("no manager runs here")

// userRecords are the present manager's records of users.
type userRecords struct{ managed *managedServices }

// User implements authz.Users.
func (r userRecords) User(name string) (authz.UserRecord, bool) {
	if users := r.managed.userRecords(); users != nil {
		return users.User(name)
	}
	return authz.UserRecord{}, false
}

// CatchUp implements authz.Users.
func (r userRecords) CatchUp(ctx context.Context) error {
	if users := r.managed.userRecords(); users != nil {
		return users.CatchUp(ctx)
	}
	return errNoRecords
}
