package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/skep-io/skep/api"
)

// traffic reads the counters of the node's end of a veth pair: what that sends, the container receives. It is nil when there is no
// such interface.
func traffic(veth string) (*api.NetworkStats, error) {
	link, err := netlink.LinkByName(veth)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters of interface %s: %w", veth, err)
	}
	s := link.Attrs().Statistics
	if s == nil {
		return nil, nil
	}
	return &api.NetworkStats{
		InBytes: s.TxBytes, InPackets: s.TxPackets, InDropped: s.TxDropped,
		OutBytes: s.RxBytes, OutPackets: s.RxPackets, OutDropped: s.RxDropped,
	}, nil
}
