package daemon

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/thread"
)

func TestListenAddress(t *testing.T) {
	for _, test := range []struct{ wanted, want, refusal string }{
		{wanted: "", want: "0.0.0.0:2377"},
		{wanted: "192.0.2.7", want: "192.0.2.7:2377"},
		{wanted: "192.0.2.7:4000", want: "192.0.2.7:4000"},
		{wanted: "[2001:db8::1]:4000", want: "[2001:db8::1]:4000"},
		{wanted: "2001:db8::1", want: "[2001:db8::1]:2377"},
		{wanted: "lo", want: "127.0.0.1:2377"},
		{wanted: "nosuch0", refusal: "neither an IP address nor a network interface"},
	} {
		got, err := listenAddress(test.wanted)
		checkAddress(t, test.wanted, got, err, test.want, test.refusal)
	}
}

func TestAdvertiseAddress(t *testing.T) {
	for _, test := range []struct{ wanted, listen, want, refusal string }{
		{wanted: "192.0.2.7", listen: "0.0.0.0:2377", want: "192.0.2.7:2377"},
		{wanted: "192.0.2.7", listen: "0.0.0.0:4000", want: "192.0.2.7:4000"},
		{wanted: "192.0.2.7:5000", listen: "0.0.0.0:4000", want: "192.0.2.7:5000"},
		{wanted: "", listen: "192.0.2.8:2377", want: "192.0.2.8:2377"},
		{wanted: "lo", listen: "0.0.0.0:2377", want: "127.0.0.1:2377"},
		{wanted: "0.0.0.0", listen: "0.0.0.0:2377", refusal: "must be a non-zero IP address"},
		{wanted: "nosuch0", listen: "0.0.0.0:2377", refusal: "nosuch0"},
	} {
		got, err := advertiseAddress(test.wanted, test.listen)
		checkAddress(t, test.wanted, got, err, test.want, test.refusal)
	}
}

// TestAdvertiseAddress_NamesThoseThereAre: where a machine has several addresses, a person says which, by itself or as an interface.
func TestAdvertiseAddress_NamesThoseThereAre(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network of its own with two addresses")
	}
	done := make(chan struct{})
	thread.Go(func() {
		defer close(done)
		if err := twoAddresses("192.0.2.7/24", "198.51.100.8/24"); err != nil {
			t.Error(err)
			return
		}
		_, err := advertiseAddress("", "0.0.0.0:2377")
		for _, part := range []string{"192.0.2.7 on one0", "198.51.100.8 on two0", "specify one with --advertise-addr"} {
			checkAddress(t, "", "", err, "", part)
		}
		for wanted, want := range map[string]string{"198.51.100.8": "198.51.100.8:2377", "one0": "192.0.2.7:2377"} {
			got, err := advertiseAddress(wanted, "0.0.0.0:2377")
			checkAddress(t, wanted, got, err, want, "")
		}
	})
	<-done
}

// twoAddresses puts the thread into a network of its own, with the interfaces one0 and two0.
func twoAddresses(one, two string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "one0"}, PeerName: "two0"}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	for name, text := range map[string]string{"one0": one, "two0": two} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
			return err
		}
	}
	return nil
}

func checkAddress(t *testing.T, wanted, got string, err error, want, refusal string) {
	t.Helper()
	if refusal != "" {
		if err == nil || !strings.Contains(err.Error(), refusal) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %q, %v, want an invalid argument that says %q", wanted, got, err, refusal)
		}
		return
	}
	if err != nil || got != want {
		t.Errorf("%q: got %q, %v, want %q", wanted, got, err, want)
	}
}

func TestLocalAddress(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:2377": "127.0.0.1:2377", "[::]:2377": "[::1]:2377", "192.0.2.7:4000": "192.0.2.7:4000",
	} {
		if got := localAddress(listen); got != want {
			t.Errorf("%s: got %s, want %s", listen, got, want)
		}
	}
}
