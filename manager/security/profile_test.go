package security_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"

	"github.com/skep-io/skep/manager/security"
)

// full returns Docker's default profile as a file.
func full(t testing.TB) []byte {
	t.Helper()
	text, err := json.MarshalIndent(moby.DefaultProfile(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCheckProfile_TakesDockersOwn(t *testing.T) {
	for name, text := range map[string]string{
		"the default profile": string(full(t)),
		"OCI's form": `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
			"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null}]}`,
		"an old one": `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":[],"includes":{},"excludes":null}]}`,
		"no rules":   `{"defaultAction":"SCMP_ACT_KILL"}`,
	} {
		if err := security.CheckProfile([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckProfile_SaysWhereTheMistakeIs(t *testing.T) {
	rule := func(s string) string {
		return "{\n  \"defaultAction\": \"SCMP_ACT_ERRNO\",\n  \"syscalls\": [" + s + "]\n}"
	}
	for _, tc := range []struct{ name, text, want string }{
		{"empty", ``, "line 1, column 1: not JSON"},
		{"a comma too many", "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\",\n}", "line 3, column 1: not JSON"},
		{"two values", "{\"defaultAction\":\"SCMP_ACT_ALLOW\"}\n{}", "line 2, column 1: not JSON"},
		{"a list", `[]`, "line 1, column 1: must be an object"},
		{"nothing in it", `{}`, "line 1, column 1: defaultAction: is missing"},
		{"null", `null`, "line 1, column 1: defaultAction: is missing"},
		{"unknown field", "{\n \"defaultActoin\": 1}", "line 2, column 2: defaultActoin: is no field"},
		{"other case", `{"DefaultAction":"SCMP_ACT_ALLOW"}`, "line 1, column 2: DefaultAction: is no field"},
		{"twice", `{"defaultAction":"SCMP_ACT_ERRNO","defaultAction":"SCMP_ACT_ALLOW"}`, "line 1, column 35: defaultAction: is there twice"},
		{"unknown action", `{"defaultAction":"ALLOW"}`, `line 1, column 18: defaultAction: unknown action "ALLOW"`},
		{"architectures twice", `{"defaultAction":"SCMP_ACT_ALLOW","archMap":[],"architectures":[]}`, "archMap: can't be given beside"},
		{"unknown architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["vax"]}`, `column 52: architectures[0]: unknown architecture "vax"`},
		{"a listener", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}`, "listenerPath: a listener is not supported"},
		{"notify", rule(`{"names":["read"],"action":"SCMP_ACT_NOTIFY"}`), "line 3, column 43: syscalls[0].action: SCMP_ACT_NOTIFY is not supported"},
		{"no action", rule(`{"names":["read"]}`), "syscalls[0]: has no action"},
		{"no name", rule(`{"action":"SCMP_ACT_ALLOW"}`), "syscalls[0]: must have either names or name"},
		{"null for a rule", rule("null"), "syscalls[0]: has no action"},
		{"no such name", rule(`{"names":["re ad"],"action":"SCMP_ACT_ALLOW"}`), `syscalls[0].names[0]: "re ad" is no name`},
		{"errno", rule(`{"name":"read","action":"SCMP_ACT_ERRNO","errnoRet":4096}`), "syscalls[0].errnoRet: must be a number from 0 to 4095"},
		{"negative", rule(`{"name":"read","action":"SCMP_ACT_ERRNO","errnoRet":-1}`), "syscalls[0].errnoRet: must be a number"},
		{"no comparison", rule(`{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":0}]}`), "syscalls[0].args[0]: has no op"},
		{"unknown comparison", rule(`{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"=="}]}`), `syscalls[0].args[0].op: unknown comparison "=="`},
		{"seventh argument", rule(`{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}`), "args[0].index: must be a number from 0 to 5"},
		{"capability", rule(`{"name":"read","action":"SCMP_ACT_ALLOW","includes":{"caps":["ADMIN"]}}`), `includes.caps[0]: "ADMIN" is no capability`},
		{"kernel", rule(`{"name":"read","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}`), `includes.minKernel: "new" is no version`},
		{"too many bytes", strings.Repeat(" ", security.MaxProfile+1), "at most 262144 are possible"},
		{"too many rules", rule(strings.TrimSuffix(strings.Repeat(`{"name":"read","action":"SCMP_ACT_ALLOW"},`, 4097), ",")), "syscalls: more than 4096 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := security.CheckProfile([]byte(tc.text))
			if !errors.As(err, new(*security.ProfileError)) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// FuzzCheckProfile holds that nothing panics, that a mistake is within the profile, and that what is accepted Docker's own reader
// accepts, too.
func FuzzCheckProfile(f *testing.F) {
	f.Add(full(f))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":18446744073709551615,"op":"SCMP_CMP_LT"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["x"],"action":"SCMP_ACT_TRAP","includes":{"caps":["CAP_X"],"minKernel":"4.8"}}]}`))
	f.Add([]byte("{\n\"a\":[{}],}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := security.CheckProfile(data)
		var mistake *security.ProfileError
		if errors.As(err, &mistake) {
			lines := strings.Split(string(data), "\n")
			if mistake.Line < 1 || mistake.Line > len(lines) || mistake.Column < 1 || mistake.Column > len(lines[mistake.Line-1])+1 {
				t.Fatalf("%v, of %d lines", err, len(lines))
			}
			return
		}
		if err != nil {
			t.Fatalf("%v is no ProfileError", err)
		}
		var read moby.Seccomp
		if err := json.Unmarshal(data, &read); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		security.Beyond(data)
	})
}
