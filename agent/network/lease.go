package network

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/taskid"
)

const (
	leaseVersion = 1
	leaseSuffix  = ".json"
	// maxLease is the most bytes of a lease file, and maxPorts the most ports of a container: the file has 60 bytes per port.
	maxLease = 64 << 10
	maxPorts = 512
	// vethPrefix begins the names of the node's ends of veth pairs; Linux has 15 bytes for a name.
	vethPrefix = "skv"
	vethHash   = 12
)

// lease is what a container has of this node's network.
type lease struct {
	Version int        `json:"version"`
	Address netip.Addr `json:"address"`
	Ports   []port     `json:"ports,omitempty"`
}

// port is a published port.
type port struct {
	Protocol  string `json:"protocol"`
	Published uint16 `json:"published"`
	Target    uint16 `json:"target"`
}

// String returns the port of the node as in "8080/tcp".
func (p port) String() string { return fmt.Sprintf("%d/%s", p.Published, p.Protocol) }

// portsOf checks the ports of a spec and takes those that are published on this node.
func portsOf(in []*api.PortConfig) ([]port, error) {
	if len(in) > maxPorts {
		return nil, fault.New(fault.Invalid, "a service publishes %d ports, more than %d", len(in), maxPorts)
	}
	var out []port
	seen := map[string]bool{}
	for _, c := range in {
		p := port{Protocol: "tcp", Published: uint16(c.GetPublishedPort()), Target: uint16(c.GetTargetPort())}
		if c.GetProtocol() == api.Protocol_PROTOCOL_UDP {
			p.Protocol = "udp"
		}
		if c.GetPublishedPort() > 65535 || c.GetTargetPort() > 65535 || c.GetTargetPort() == 0 {
			return nil, fault.New(fault.Invalid, "port %d to %d is not within 1 to 65535", c.GetPublishedPort(), c.GetTargetPort())
		}
		if p.Published == 0 {
			p.Published = p.Target
		}
		if seen[p.String()] {
			return nil, fault.New(fault.Invalid, "port %s is published twice by one service", p)
		}
		seen[p.String()] = true
		out = append(out, p)
	}
	return out, nil
}

// vethName returns the name of the node's end of a container's veth pair.
func vethName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return vethPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:vethHash]
}

// parseLease reads a lease file.
func parseLease(data []byte) (lease, error) {
	var l lease
	if err := json.Unmarshal(data, &l); err != nil {
		return lease{}, err
	}
	switch {
	case l.Version != leaseVersion:
		return lease{}, fmt.Errorf("version %d, want %d", l.Version, leaseVersion)
	case !l.Address.Is4():
		return lease{}, fmt.Errorf("address %s is not IPv4", l.Address)
	case len(l.Ports) > maxPorts:
		return lease{}, fmt.Errorf("%d ports", len(l.Ports))
	}
	for _, p := range l.Ports {
		if p.Protocol != "tcp" && p.Protocol != "udp" || p.Published == 0 || p.Target == 0 {
			return lease{}, fmt.Errorf("port %s to %d", p, p.Target)
		}
	}
	return l, nil
}

// readLeases returns the leases in dir. Files that are none are removed: their containers are gone with the machine's last run.
func readLeases(dir string) (map[string]lease, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]lease{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), leaseSuffix)
		if !ok {
			continue
		}
		l, err := readLease(filepath.Join(dir, e.Name()))
		if err == nil && taskid.Check("container", id) == nil {
			out[id] = l
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readLease(path string) (lease, error) {
	data, err := atomicfile.Read(path, maxLease)
	if err != nil {
		return lease{}, err
	}
	return parseLease(data)
}

// writeLease writes a lease all at once, without a sync.
func writeLease(dir, id string, l lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(dir, id+leaseSuffix), data, 0o600)
}

func removeLease(dir, id string) error {
	if err := os.Remove(filepath.Join(dir, id+leaseSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
