package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// The kernel says so when interfaces changed while it listed them, as they do while containers come and go.
func TestOverlapping_WhileInterfacesChange(t *testing.T) {
	node := newNode(t)
	for i := range 40 { // so that a list takes some time
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("left", i)}, PeerName: fmt.Sprint("right", i)}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- node.inside(func() error {
			link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "comes"}, PeerName: "goes"}
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := errors.Join(netlink.LinkAdd(link), netlink.LinkDel(link)); err != nil {
					return err
				}
			}
		})
	}()
	for range 20 {
		if with, err := overlapping("none", netip.MustParsePrefix("192.0.2.0/24")); with != "" || err != nil {
			t.Errorf("overlaps with %q, %v", with, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
