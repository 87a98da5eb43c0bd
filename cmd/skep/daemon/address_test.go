package daemon

import (
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/fault"
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
