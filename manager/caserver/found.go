package caserver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// FoundConfig is what the first manager of a swarm says.
type FoundConfig struct {
	// Spec of the cluster, complete; Found keeps it.
	Spec         *api.ClusterSpec
	Hostname     string
	Availability api.Availability
}

// Founding is what a swarm begins with: two objects for its store, and the credentials of its first manager.
type Founding struct {
	Cluster     *api.Cluster
	Node        *api.Node
	Credentials ca.Credentials
}

// Found makes a swarm: a root, two join tokens, and the first manager. It returns ca.ErrShortLife. Nothing is kept or written.
func Found(now time.Time, cfg FoundConfig) (Founding, error) {
	life := cfg.Spec.GetCertExpiry().AsDuration()
	if err := ca.CheckLife(life); err != nil {
		return Founding{}, err
	}
	root, err := ca.NewRoot()
	if err != nil {
		return Founding{}, err
	}
	rootKey, err := root.RevealKey()
	if err != nil {
		return Founding{}, err
	}
	name := ca.Name{ClusterID: object.NewID(), NodeID: object.NewID(), Role: api.Role_ROLE_MANAGER}
	creds, err := firstCredentials(now, root, []*x509.Certificate{root.Certificate()}, ca.Profile{Name: name, Life: life})
	if err != nil {
		return Founding{}, fmt.Errorf("certificate of the first manager: %w", err)
	}
	return Founding{
		Cluster: &api.Cluster{
			Id: name.ClusterID, Spec: cfg.Spec,
			RootCa:     &api.RootCA{Certificate: root.CertificatePEM(), Key: rootKey},
			JoinTokens: &api.JoinTokens{Worker: token.New(root.Digest()).Reveal(), Manager: token.New(root.Digest()).Reveal()},
			BackupKey:  seal.NewKey().BackupKey(),
		},
		Node:        newNode(name.NodeID, ca.NewNode{Role: name.Role, Availability: cfg.Availability, Hostname: cfg.Hostname}),
		Credentials: creds,
	}, nil
}

func firstCredentials(now time.Time, root *ca.Root, roots []*x509.Certificate, p ca.Profile) (ca.Credentials, error) {
	key, err := ca.NewKey()
	if err != nil {
		return ca.Credentials{}, err
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		return ca.Credentials{}, err
	}
	chainPEM, err := root.Issue(now, csr, p)
	if err != nil {
		return ca.Credentials{}, err
	}
	chain, err := ca.ParseBundle(chainPEM)
	if err != nil {
		return ca.Credentials{}, err
	}
	return ca.NewCredentials(roots, chain, key)
}

// Refound makes the new first manager of a cluster that goes on from a backup: its record and its credentials, by the CA and with the
// life of certificates that the cluster has. It returns ca.ErrBadRoot or ca.ErrShortLife. Nothing is kept or written.
func Refound(now time.Time, cluster *api.Cluster, hostname string, availability api.Availability) (*api.Node, ca.Credentials, error) {
	root, issuerErr := ca.OpenIssuer(cluster.GetRootCa(), nil)
	roots, rootsErr := ca.Trusted(cluster.GetRootCa())
	if err := errors.Join(issuerErr, rootsErr); err != nil {
		return nil, ca.Credentials{}, fmt.Errorf("root CA of cluster %s: %w", cluster.GetId(), err)
	}
	name := ca.Name{ClusterID: cluster.GetId(), NodeID: object.NewID(), Role: api.Role_ROLE_MANAGER}
	creds, err := firstCredentials(now, root, roots, ca.Profile{Name: name, Life: cluster.GetSpec().GetCertExpiry().AsDuration()})
	if err != nil {
		return nil, ca.Credentials{}, fmt.Errorf("certificate of the new manager: %w", err)
	}
	return newNode(name.NodeID, ca.NewNode{Role: name.Role, Availability: availability, Hostname: hostname}), creds, nil
}
