package network

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/skep-io/skep/api"
)

// tbf returns the token bucket of an interface of the calling thread's namespace, or nil.
func tbf(t *testing.T, name string) *netlink.Tbf {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if bucket, ok := q.(*netlink.Tbf); ok {
			return bucket
		}
	}
	return nil
}

// flood sends 400 KB, far more than a bucket holds, faster than any rate of these tests.
func flood(to string) error {
	conn, err := net.Dial("udp", net.JoinHostPort(to, "9"))
	if err != nil {
		return err
	}
	defer conn.Close()
	for range 400 {
		_, _ = conn.Write(make([]byte, 1000)) // that nobody listens there is an error, too
	}
	return nil
}

func TestNetwork_HoldsAContainerToItsRates(t *testing.T) {
	node := newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	container, pid := newContainer(t)
	address, err := n.Reserve("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach("a", pid, &api.NetworkRate{InBps: 400_000, OutBps: 800_000}); err != nil {
		t.Fatal(err)
	}
	in := tbf(t, vethName("a"))
	if in == nil || in.Rate != 50_000 {
		t.Fatalf("what the container receives has the shaper %+v", in)
	}
	container.serve(80)
	if _, err := node.ask(address.String()+":80", patience); err != nil { // else packets wait for an address, not for the shaper
		t.Fatal(err)
	}
	if err := flood(address.String()); err != nil {
		t.Fatal(err)
	}
	if s := tbf(t, vethName("a")).Statistics; s == nil || s.Queue.Overlimits == 0 || s.Queue.Drops == 0 {
		t.Errorf("the flood into the container was not held back: %+v %+v", s.Queue, s.Basic)
	}
	err = container.inside(func() error {
		out := tbf(t, containerInterface)
		if out == nil || out.Rate != 100_000 {
			t.Errorf("what the container sends has the shaper %+v", out)
		}
		if err := flood(netip.PrefixFrom(address, 20).Masked().Addr().Next().String()); err != nil {
			return err
		}
		if s := tbf(t, containerInterface).Statistics; s == nil || s.Queue.Overlimits == 0 {
			t.Errorf("the flood from the container was not held back: %+v", s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, otherPID := newContainer(t)
	attach(t, n, "b", otherPID)
	if q := tbf(t, vethName("b")); q != nil {
		t.Errorf("a container without limits has the shaper %+v", q)
	}
	if err := n.Detach("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/sys/class/net/" + vethName("a")); err == nil {
		t.Error("the interface with its shaper outlives the container")
	}
}
