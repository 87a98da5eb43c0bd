package security_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
)

func custom(profile string) *api.Privileges {
	return &api.Privileges{Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: []byte(profile)}}
}

func TestWeaknesses(t *testing.T) {
	allow := func(rule string) *api.Privileges {
		return custom(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW",` + rule + `}]}`)
	}
	for _, tc := range []struct {
		name       string
		privileges *api.Privileges
		want       []string
	}{
		{"none", nil, nil},
		{"defaults", &api.Privileges{Seccomp: &api.SeccompOptions{}, Apparmor: &api.AppArmorOptions{}, SelinuxContext: &api.SELinuxContext{}}, nil},
		{"the node's ids", &api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST}, []string{"userns=host"}},
		{"new privileges", &api.Privileges{NewPrivileges: true}, []string{"no-new-privileges=false"}},
		{"no filter", &api.Privileges{Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}}, []string{"seccomp=unconfined"}},
		{"no AppArmor", &api.Privileges{Apparmor: &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED}}, []string{"apparmor=unconfined"}},
		{"another AppArmor profile", &api.Privileges{Apparmor: &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_PROFILE, Profile: "web"}}, []string{"apparmor=web"}},
		{"no label", &api.Privileges{SelinuxContext: &api.SELinuxContext{Disable: true}}, []string{"label=disable"}},
		{"another type", &api.Privileges{SelinuxContext: &api.SELinuxContext{Type: "spc_t"}}, []string{"label=type:spc_t"}},
		{"a strict profile", allow(`"names":["read","exit_group"]`), nil},
		{"the default profile", custom(string(full(t))), nil},
		{"everything by default", custom(`{"defaultAction":"SCMP_ACT_ALLOW"}`), []string{"seccomp=PROFILE"}},
		{"everything logged", custom(`{"defaultAction":"SCMP_ACT_LOG"}`), []string{"seccomp=PROFILE"}},
		{"a call more", allow(`"names":["read","bpf"]`), []string{"seccomp=PROFILE"}},
		{"a call more, by the old field", allow(`"name":"bpf"`), []string{"seccomp=PROFILE"}},
		{"a call for those who may", allow(`"names":["bpf"],"includes":{"caps":["CAP_BPF"]}`), nil},
		{"without the default's condition", allow(`"names":["personality"]`), []string{"seccomp=PROFILE"}},
		{"with the default's condition", allow(`"names":["personality"],"args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]`), nil},
		{"with another condition", allow(`"names":["personality"],"args":[{"index":0,"value":7,"op":"SCMP_CMP_EQ"}]`), []string{"seccomp=PROFILE"}},
		{"damaged", custom(`{`), []string{"seccomp=PROFILE"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, w := range security.Weaknesses(&api.TaskSpec{Container: &api.ContainerSpec{Privileges: tc.privileges}}) {
				got = append(got, w.Option)
				if w.Means == "" {
					t.Errorf("%s: nothing says what it means", w.Option)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("weaknesses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWeaknesses_NameTheCalls(t *testing.T) {
	all := security.Weaknesses(&api.TaskSpec{Container: &api.ContainerSpec{Privileges: custom(
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["kexec_load","read","bpf"],"action":"SCMP_ACT_ALLOW"}]}`)}})
	if len(all) != 1 || !strings.HasSuffix(all[0].Means, ": bpf, kexec_load") {
		t.Errorf("got %v", all)
	}
}
