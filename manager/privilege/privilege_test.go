package privilege_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/privilege"
)

func grant(capabilities ...string) *api.Grant {
	return &api.Grant{Spec: &api.GrantSpec{Capabilities: capabilities}}
}

func TestExcesses_OfCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name      string
		add, drop []string
		grants    []*api.Grant
		want      string
	}{
		{name: "nothing"},
		{name: "a default one", add: []string{"CAP_NET_RAW"}},
		{name: "beyond", add: []string{"CAP_NET_ADMIN", "CAP_BPF"}, want: "capability CAP_NET_ADMIN, capability CAP_BPF"},
		{name: "added and dropped", add: []string{"CAP_NET_ADMIN"}, drop: []string{"CAP_NET_ADMIN"}},
		{name: "all but what is dropped", drop: []string{"ALL"}, add: []string{"CAP_SYS_TIME"}, want: "capability CAP_SYS_TIME"},
		{name: "granted", add: []string{"CAP_NET_ADMIN"}, grants: []*api.Grant{grant("CAP_BPF"), grant("CAP_NET_ADMIN")}},
		{name: "another is granted", add: []string{"CAP_NET_ADMIN"}, grants: []*api.Grant{grant("CAP_BPF")}, want: "capability CAP_NET_ADMIN"},
		{name: "all are granted", add: []string{"ALL"}, grants: []*api.Grant{grant("ALL")}},
	} {
		var got []string
		for _, e := range privilege.Excesses(&api.TaskSpec{Container: &api.ContainerSpec{CapabilityAdd: tt.add, CapabilityDrop: tt.drop}}, tt.grants) {
			got = append(got, e.What)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, got, tt.want)
		}
	}
}

// --cap-add ALL is everything beyond the default, each by its name, so that one grant of all that is named covers it.
func TestExcesses_AllNamesEveryOne(t *testing.T) {
	all := &api.ContainerSpec{CapabilityAdd: []string{privilege.AllCapabilities}}
	excesses := privilege.Excesses(&api.TaskSpec{Container: all}, nil)
	if want := len(privilege.Capabilities()) - len(privilege.DefaultCapabilities()); len(excesses) != want {
		t.Errorf("%d excesses, want %d", len(excesses), want)
	}
	text := privilege.Explain(excesses)
	if !strings.Contains(text, "and 22 more are beyond") || !strings.Contains(text, "skep grant create NAME --cap-add ALL`,") {
		t.Errorf("got %s", text)
	}
	var names []string
	for _, e := range excesses {
		names = append(names, "CAP_"+strings.TrimPrefix(e.Option, "--cap-add "))
	}
	if left := privilege.Excesses(&api.TaskSpec{Container: all}, []*api.Grant{grant(names...)}); len(left) != 0 {
		t.Errorf("what the text says to grant leaves %v", left)
	}
	// The command gives all of it, also what is not listed.
	if text := privilege.Explain(excesses[1:]); strings.Count(text, "--cap-add ") != len(excesses)-1 {
		t.Errorf("with all capabilities but one: %s", text)
	}
}

// Admission and the runtime must mean the same fourteen (P1): the runtime's are in its own package, which managers don't import.
func TestDefaultCapabilities_AreKnown(t *testing.T) {
	for _, name := range privilege.DefaultCapabilities() {
		if !slices.Contains(privilege.Capabilities(), name) {
			t.Errorf("%s is no capability", name)
		}
	}
	if n := len(privilege.DefaultCapabilities()); n != 14 {
		t.Errorf("%d default capabilities, Docker has 14", n)
	}
}

// A grant is open to operators by its own word only; nobody else but administrators, and the managers for them, uses any.
func TestClosed_IsWhatIsForAdministrators(t *testing.T) {
	closed, open := &api.Grant{Spec: &api.GrantSpec{Annotations: &api.Annotations{Name: "closed"}}},
		&api.Grant{Spec: &api.GrantSpec{Annotations: &api.Annotations{Name: "open"}, Operators: true}}
	for caller := range api.Caller_name {
		want := "closed"
		if c := api.Caller(caller); c == api.Caller_CALLER_ADMIN || c == api.Caller_CALLER_MANAGER {
			want = ""
		}
		if got := privilege.Closed(api.Caller(caller), []*api.Grant{open, closed}); got != want {
			t.Errorf("%v: %q, want %q", api.Caller(caller), got, want)
		}
		if got := privilege.Closed(api.Caller(caller), []*api.Grant{open}); got != "" {
			t.Errorf("%v: %q is closed", api.Caller(caller), got)
		}
	}
}
