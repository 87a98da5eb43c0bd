package privilege_test

import (
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/privilege"
)

func TestExcesses_OfBindMounts(t *testing.T) {
	const (
		slave, rslave, rshared = api.MountPropagation_MOUNT_PROPAGATION_SLAVE, api.MountPropagation_MOUNT_PROPAGATION_RSLAVE, api.MountPropagation_MOUNT_PROPAGATION_RSHARED
		writable, readOnly     = api.BindRecursive_BIND_RECURSIVE_WRITABLE, api.BindRecursive_BIND_RECURSIVE_READONLY
	)
	for name, tt := range map[string]struct {
		given *api.GrantMount
		mount *api.Mount
		want  string
	}{
		"none is granted":            {nil, &api.Mount{Source: "/srv"}, "--mount-host /srv"},
		"none to read":               {nil, &api.Mount{Source: "/srv/", ReadOnly: true}, "--mount-host /srv:ro"},
		"all of it":                  {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv"}, ""},
		"a part":                     {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv/a"}, ""},
		"all of the node":            {&api.GrantMount{Source: "/"}, &api.Mount{Source: "/srv/a"}, ""},
		"more":                       {&api.GrantMount{Source: "/srv/a"}, &api.Mount{Source: "/srv"}, "--mount-host /srv"},
		"beside it":                  {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv2"}, "--mount-host /srv2"},
		"out of it":                  {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv/../etc"}, "--mount-host /etc"},
		"less":                       {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv", ReadOnly: true, BindRecursive: readOnly}, ""},
		"to read, granted so":        {&api.GrantMount{Source: "/srv", ReadOnly: true}, &api.Mount{Source: "/srv", ReadOnly: true}, ""},
		"to write, granted to read":  {&api.GrantMount{Source: "/srv", ReadOnly: true}, &api.Mount{Source: "/srv"}, "--mount-host /srv"},
		"to write below":             {&api.GrantMount{Source: "/srv", ReadOnly: true}, &api.Mount{Source: "/srv", ReadOnly: true, BindRecursive: writable}, "--mount-host /srv"},
		"events of the node":         {&api.GrantMount{Source: "/srv"}, &api.Mount{Source: "/srv", BindPropagation: rslave}, "--mount-host /srv:rslave"},
		"events, granted":            {&api.GrantMount{Source: "/srv", Propagation: rslave}, &api.Mount{Source: "/srv", BindPropagation: slave}, ""},
		"events to the node":         {&api.GrantMount{Source: "/srv", Propagation: rslave}, &api.Mount{Source: "/srv", BindPropagation: rshared, ReadOnly: true}, "--mount-host /srv:ro,rshared"},
		"fewer events than granted":  {&api.GrantMount{Source: "/srv", Propagation: rshared}, &api.Mount{Source: "/srv"}, ""},
		"a volume is nobody's grant": {nil, &api.Mount{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db"}, ""},
	} {
		if tt.mount.Type == 0 {
			tt.mount.Type = api.MountType_MOUNT_TYPE_BIND
		}
		var grants []*api.Grant
		if tt.given != nil {
			grants = []*api.Grant{{Spec: &api.GrantSpec{Mounts: []*api.GrantMount{tt.given}}}}
		}
		var got []string
		for _, e := range privilege.Excesses(&api.TaskSpec{Container: &api.ContainerSpec{Mounts: []*api.Mount{tt.mount}}}, grants) {
			got = append(got, e.Option)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
