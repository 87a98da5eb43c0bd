package flagvalue_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// checkErr reports whether err is as wanted: "" for none, else a part of its text.
func checkErr(t *testing.T, err error, want string) bool {
	t.Helper()
	switch {
	case err == nil && want != "":
		t.Errorf("got no error, want %q", want)
	case err != nil && want == "":
		t.Errorf("got error %q, want none", err)
	case err != nil && !strings.Contains(err.Error(), want):
		t.Errorf("got error %q, want %q in it", err, want)
	}
	return err == nil
}

func TestSecret(t *testing.T) {
	for text, want := range map[string]struct {
		secret flagvalue.Value
		err    string
	}{
		"db":                             {flagvalue.Value{Source: "db", Target: "db", Mode: 0o444}, ""},
		"source=db":                      {flagvalue.Value{Source: "db", Target: "db", Mode: 0o444}, ""},
		"src=db,target=/run/pw":          {flagvalue.Value{Source: "db", Target: "/run/pw", Mode: 0o444}, ""},
		"source=Db,uid=7,gid=8":          {flagvalue.Value{Source: "Db", Target: "Db", UID: 7, GID: 8, Mode: 0o444}, ""},
		"source=db,on-change=signal:HUP": {flagvalue.Value{Source: "db", Target: "db", Mode: 0o444, OnChange: api.OnChange_ON_CHANGE_SIGNAL, Signal: "HUP"}, ""},
		"source=db,on-change=none":       {flagvalue.Value{Source: "db", Target: "db", Mode: 0o444, OnChange: api.OnChange_ON_CHANGE_NONE}, ""},
		"source=db@2,on-change=restart":  {flagvalue.Value{Source: "db", Version: 2, Target: "db", Mode: 0o444}, ""},
		"on-change=none,source=db@2":     {err: "source=db@2 never changes"},
		"source=db,on-change=signal:":    {err: "write restart, signal:NAME as in signal:HUP, or none"},
		"source=db,on-change=":           {err: "invalid on-change specified"},
		"source=db,mode=0400":            {flagvalue.Value{Source: "db", Target: "db", Mode: 0o400}, ""},
		`"source=db","target=a,b"`:       {flagvalue.Value{Source: "db", Target: "a,b", Mode: 0o444}, ""},
		"":                               {err: "EOF"},
		"target=x":                       {err: "source is required"},
		"foo=bar":                        {err: "invalid field in secret request: foo"},
		"source=db,ro":                   {err: "invalid field 'ro' must be a key=value pair"},
		"source=db,mode=rw":              {err: "invalid mode specified"},
		"source=db,mode=777777":          {err: "invalid mode specified"},
		"source=db,uid=root":             {err: "invalid uid specified"},
		"source=db,gid=-1":               {err: "invalid gid specified"},
		strings.Repeat("source=a,", 40):  {err: "more than 32"},
	} {
		t.Run(text, func(t *testing.T) {
			var secrets flagvalue.Secrets
			if checkErr(t, secrets.Set(text), want.err) {
				if diff := cmp.Diff(flagvalue.Secrets{want.secret}, secrets); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestPort(t *testing.T) {
	const host = api.PublishMode_PUBLISH_MODE_HOST
	const tcp, udp = api.Protocol_PROTOCOL_TCP, api.Protocol_PROTOCOL_UDP
	for text, want := range map[string]struct {
		port *api.PortConfig
		err  string
	}{
		"published=8080,target=80,mode=host": {&api.PortConfig{Protocol: tcp, TargetPort: 80, PublishedPort: 8080, PublishMode: host}, ""},
		"target=53,protocol=udp,mode=host":   {&api.PortConfig{Protocol: udp, TargetPort: 53, PublishMode: host}, ""},
		"published=8080,target=80":           {err: "--publish published=8080,target=80,mode=host"},
		"published=1,target=80,mode=ingress": {err: "needs an overlay network"},
		"target=53,protocol=udp":             {err: "--publish target=53,protocol=udp,mode=host"},
		"8080:80":                            {err: "--publish published=8080,target=80,mode=host"},
		"80":                                 {err: "--publish target=80,mode=host"},
		"53:53/udp":                          {err: "--publish published=53,target=53,protocol=udp,mode=host"},
		"127.0.0.1:8080:80":                  {err: "hostip is not supported"},
		"foo":                                {err: "invalid containerPort: foo"},
		"foo:80":                             {err: "invalid hostPort: foo"},
		"80/sctp":                            {err: "invalid protocol value 'sctp'"},
		"foo=1":                              {err: "invalid field key: foo"},
		"target=":                            {err: "invalid field: target="},
		"target":                             {err: "invalid containerPort: target"},
		"published=80,mode=host":             {err: `missing mandatory field "target"`},
		"published=x,target=1":               {err: "invalid published port (x): value must be an integer"},
		"target=0,mode=host":                 {err: "from 1 to 65535"},
		"target=65536,mode=host":             {err: "value out of range"},
		"target=80,mode=both":                {err: "must be either 'ingress' or 'host'"},
		"target=80,mode=host,protocol=sctp":  {err: "write tcp or udp"},
		"target=80,published=8000-8010,mode=host": {err: "value must be an integer"},
	} {
		t.Run(text, func(t *testing.T) {
			var ports flagvalue.Ports
			if checkErr(t, ports.Set(text), want.err) {
				if diff := cmp.Diff(flagvalue.Ports{want.port}, ports, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestTargetPort(t *testing.T) {
	var ports flagvalue.TargetPorts
	for _, text := range []string{"80", "53/udp", "8080:81"} {
		if err := ports.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	want := flagvalue.TargetPorts{{80, api.Protocol_PROTOCOL_TCP}, {53, api.Protocol_PROTOCOL_UDP}, {81, api.Protocol_PROTOCOL_TCP}}
	if diff := cmp.Diff(want, ports); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "x", "80/x", "0", ":"} {
		if err := ports.Set(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestHostMounts(t *testing.T) {
	for text, want := range map[string]struct {
		mount *api.GrantMount
		err   string
	}{
		"/a":            {&api.GrantMount{Source: "/a"}, ""},
		"/a:ro":         {&api.GrantMount{Source: "/a", ReadOnly: true}, ""},
		"/a:/b":         {&api.GrantMount{Source: "/a", Target: "/b"}, ""},
		"/a:/b:rw":      {&api.GrantMount{Source: "/a", Target: "/b"}, ""},
		"/a:ro,rslave":  {&api.GrantMount{Source: "/a", ReadOnly: true, Propagation: api.MountPropagation_MOUNT_PROPAGATION_RSLAVE}, ""},
		"/a:/b:shared":  {&api.GrantMount{Source: "/a", Target: "/b", Propagation: api.MountPropagation_MOUNT_PROPAGATION_SHARED}, ""},
		"a":             {err: "write SOURCE"},
		"/a:b":          {err: "write SOURCE"},
		"/a::ro":        {err: "write SOURCE"},
		"/a:/b:/c":      {err: "write SOURCE"},
		"/a:/b:ro,loud": {err: "write SOURCE"},
		"/a:/b:/c:ro":   {err: "write SOURCE"},
		"/a:ro:ro":      {err: "write SOURCE"},
	} {
		t.Run(text, func(t *testing.T) {
			var mounts flagvalue.HostMounts
			if checkErr(t, mounts.Set(text), want.err) {
				if diff := cmp.Diff(flagvalue.HostMounts{want.mount}, mounts, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestMount(t *testing.T) {
	const tmpfs, volume = api.MountType_MOUNT_TYPE_TMPFS, api.MountType_MOUNT_TYPE_VOLUME
	for text, want := range map[string]struct {
		mount *api.Mount
		err   string
	}{
		"type=tmpfs,target=/t":                 {&api.Mount{Type: tmpfs, Target: "/t"}, ""},
		"type=tmpfs,dst=/t,readonly":           {&api.Mount{Type: tmpfs, Target: "/t", ReadOnly: true}, ""},
		"type=tmpfs,destination=/t,ro=false":   {&api.Mount{Type: tmpfs, Target: "/t"}, ""},
		"type=tmpfs,target=/t,tmpfs-size=64m":  {&api.Mount{Type: tmpfs, Target: "/t", TmpfsSizeBytes: 64 << 20}, ""},
		"type=tmpfs,target=/t,tmpfs-mode=0700": {&api.Mount{Type: tmpfs, Target: "/t", TmpfsMode: 0o700}, ""},
		"type=tmpfs":                           {err: "target is required"},
		"type=tmpfs,target=t":                  {err: "write an absolute path"},
		"source=db,target=/t":                  {&api.Mount{Type: volume, Source: "db", Target: "/t"}, ""},
		"type=volume,src=db,target=/t,volume-nocopy,volume-subpath=a/b,volume-driver=local": {&api.Mount{Type: volume, Source: "db", Target: "/t", VolumeNoCopy: true, VolumeSubpath: "a/b"}, ""},
		"src=db,target=/t,volume-anywhere":                                                  {&api.Mount{Type: volume, Source: "db", Target: "/t", VolumeAnywhere: true}, ""},
		"type=volume,src=db,target=/t,volume-nocopy=false,ro":                               {&api.Mount{Type: volume, Source: "db", Target: "/t", ReadOnly: true}, ""},
		"type=bind,source=/x,target=/t":                                                     {&api.Mount{Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/t"}, ""},
		"type=bind,source=/x,target=/t,ro,bind-propagation=rslave,bind-recursive=writable": {&api.Mount{
			Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/t", ReadOnly: true,
			BindPropagation: api.MountPropagation_MOUNT_PROPAGATION_RSLAVE, BindRecursive: api.BindRecursive_BIND_RECURSIVE_WRITABLE,
		}, ""},
		"type=bind,source=/x,target=/t,bind-nonrecursive": {&api.Mount{
			Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/t", BindRecursive: api.BindRecursive_BIND_RECURSIVE_DISABLED,
		}, ""},
		"type=bind,source=/x,target=/t,bind-propagation=loud": {err: `invalid propagation "loud"`},
		"type=bind,source=/x,target=/t,bind-recursive=on":     {err: "invalid value for bind-recursive: on"},
		"type=image,source=app:1,target=/t,image-subpath=a/b": {&api.Mount{
			Type: api.MountType_MOUNT_TYPE_IMAGE, Source: "app:1", Target: "/t", ImageSubpath: "a/b",
		}, ""},
		"type=npipe,target=/t":                     {err: `a mount of the type "npipe" can't be had`},
		"src=db,target=/t,volume-driver=nfs":       {err: `volume driver "nfs" can't be had`},
		"src=db,target=/t,volume-anywhere=maybe":   {err: "invalid value for volume-anywhere: maybe"},
		"src=db,target=/t,volume-nocopy=maybe":     {err: "invalid value for volume-nocopy: maybe"},
		"foo=bar":                                  {err: "unexpected key 'foo' in 'foo=bar'"},
		"type":                                     {err: "invalid field 'type' must be a key=value pair"},
		"type=tmpfs,target=/a,tmpfs-size=x":        {err: "invalid value for tmpfs-size: x"},
		"type=tmpfs,target=/a,tmpfs-size=-1":       {err: "invalid value for tmpfs-size: -1"},
		"type=tmpfs,target=/a,tmpfs-mode=9":        {err: "invalid value for tmpfs-mode: 9"},
		"type=tmpfs,target=/a,ro=perhaps":          {err: "invalid value for ro: perhaps"},
		"type=tmpfs,target=/a,tmpfs-size=9999999P": {err: "invalid value for tmpfs-size"},
	} {
		t.Run(text, func(t *testing.T) {
			var mounts flagvalue.Mounts
			if checkErr(t, mounts.Set(text), want.err) {
				if diff := cmp.Diff(flagvalue.Mounts{want.mount}, mounts, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestNanoCPUs(t *testing.T) {
	for text, want := range map[string]struct {
		nano int64
		err  string
	}{
		"1": {1e9, ""}, "0.5": {5e8, ""}, "1/4": {25e7, ""}, "0.000000001": {1, ""}, "0": {0, ""},
		"foo":                     {err: "failed to parse foo as a rational number"},
		"":                        {err: "rational number"},
		"1/0":                     {err: "rational number"},
		"1e9999999999":            {err: "rational number"},
		"0.0000000001":            {err: "value is too precise"},
		"99999999999999999999999": {err: "more CPUs than there can be"},
		strings.Repeat("1", 99):   {err: "it is too long"},
	} {
		t.Run(text, func(t *testing.T) {
			var cpus flagvalue.NanoCPUs
			if checkErr(t, cpus.Set(text), want.err) && int64(cpus) != want.nano {
				t.Errorf("got %d, want %d", cpus, want.nano)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]struct {
		bytes int64
		err   string
	}{
		"64M": {64 << 20, ""}, "1.5g": {3 << 29, ""}, "4096": {4096, ""}, "0": {0, ""}, "2KiB": {2048, ""},
		"foo": {err: "invalid size: 'foo'"}, "-1": {err: "invalid size"}, "9999999999P": {err: "invalid size"},
	} {
		t.Run(text, func(t *testing.T) {
			var bytes flagvalue.Bytes
			if checkErr(t, bytes.Set(text), want.err) && int64(bytes) != want.bytes {
				t.Errorf("got %d, want %d", bytes, want.bytes)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]struct{ addr, err string }{
		"0.0.0.0:2377": {"0.0.0.0:2377", ""}, "eth0": {"eth0:2377", ""}, "eth0:99": {"eth0:99", ""}, ":5000": {"0.0.0.0:5000", ""},
		"::1": {"[::1]:2377", ""}, "[::1]:99": {"[::1]:99", ""}, "tcp://10.0.0.1": {"10.0.0.1:2377", ""},
		"":        {err: "is no address"},
		"a b":     {err: "is no address"},
		"a:b:c":   {err: "is no address"},
		"h:0":     {err: "is no port"},
		"h:70000": {err: "is no port"},
	} {
		t.Run(text, func(t *testing.T) {
			var addr flagvalue.NodeAddr
			if checkErr(t, addr.Set(text), want.err) && addr.String() != want.addr {
				t.Errorf("got %s, want %s", &addr, want.addr)
			}
		})
	}
	if _, err := flagvalue.RemoteAddr(":2377"); err == nil {
		t.Error("a remote address without a host was accepted")
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string]struct {
		words []string
		err   string
	}{
		``: {nil, ""}, `a  b`: {[]string{"a", "b"}, ""}, `'a b' "c d"`: {[]string{"a b", "c d"}, ""}, `a''b`: {[]string{"ab"}, ""},
		`''`: {[]string{""}, ""}, `a\ b`: {[]string{"a b"}, ""}, `"a\"b\n"`: {[]string{`a"b\n`}, ""}, `'a\'`: {[]string{`a\`}, ""},
		`"$HOME"`: {[]string{"$HOME"}, ""}, `'a`: {err: "ends inside a quote"}, `a\`: {err: "ends inside a quote"},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := flagvalue.Split(text)
			if checkErr(t, err, want.err) {
				if diff := cmp.Diff(want.words, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestReadEnv(t *testing.T) {
	lookup := func(name string) (string, bool) { return "from-" + name, name == "SET" }
	file := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\xef\xbb\xbf# comment\n\n  A=1\nSET\nUNSET\nB=\"two words\" \nE=\n")
	got, err := flagvalue.ReadEnv([]string{file}, []string{"A=2", "C=3"}, lookup)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A=2", "SET=from-SET", `B="two words" `, "E=", "C=3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"=x\n": "no variable name", "A B=1\n": "variable 'A B' contains whitespaces", "A=\xff\n": "invalid utf8", "A=\x00": "zero byte",
		strings.Repeat("x", 1<<20+1): "larger than",
	} {
		write(text)
		_, err := flagvalue.ReadEnv([]string{file}, nil, lookup)
		checkErr(t, err, want)
	}
	_, err = flagvalue.ReadEnv([]string{"/nonexistent"}, nil, lookup)
	checkErr(t, err, "no such file")
	_, err = flagvalue.ReadEnv(nil, []string{"=x"}, lookup)
	checkErr(t, err, "invalid environment variable: =x")
}

func TestFilter(t *testing.T) {
	var filter flagvalue.Filter
	for _, condition := range []string{"name=web", "name=api", "label=a=1", "Role=worker"} {
		if err := filter.Set(condition); err != nil {
			t.Fatal(err)
		}
	}
	for claim, holds := range map[string]bool{
		"a prefix":               filter.Prefix("name", "website"),
		"another alternative":    filter.Prefix("name", "x", "api-1"),
		"no condition":           filter.Prefix("id", "x"),
		"a label":                filter.Labels("label", map[string]string{"a": "1"}),
		"a word in another case": filter.Equal("role", "Worker"),
		"not another name":       !filter.Prefix("name", "db"),
		"not another value":      !filter.Labels("label", map[string]string{"a": "2"}),
		"not a missing label":    !filter.Labels("label", nil),
		"known keys":             filter.Check("name", "label", "role") == nil,
		"known words":            filter.Check("name", "label", "role=manager|worker") == nil,
	} {
		if !holds {
			t.Errorf("%s: does not hold", claim)
		}
	}
	checkErr(t, filter.Check("name=a|b", "role"), `invalid filter "label": filter by name, role`)
	checkErr(t, filter.Check("name", "label", "role=manager"), `invalid filter "role=worker": the role is one of manager`)
	checkErr(t, filter.Set("name"), "write name=value")
	checkErr(t, filter.Set("=x"), "write name=value")
}

func TestLabels(t *testing.T) {
	var labels flagvalue.Labels
	for _, text := range []string{"a=1", "b", "a=2=3"} {
		if err := labels.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(flagvalue.Labels{"a": "2=3", "b": ""}, labels); diff != "" {
		t.Error(diff)
	}
	checkErr(t, labels.Set("=x"), "invalid label format")
}

// TestValues_HaveNoDefault keeps help pages free of (default ...) for values that start empty.
func TestValues_HaveNoDefault(t *testing.T) {
	for _, value := range []pflag.Value{
		new(flagvalue.Bytes), new(flagvalue.NanoCPUs), new(flagvalue.List), new(flagvalue.Labels), new(flagvalue.Words),
		new(flagvalue.Filter), new(flagvalue.Secrets), new(flagvalue.Ports), new(flagvalue.TargetPorts), new(flagvalue.Mounts),
	} {
		if got := value.String(); got != "" {
			t.Errorf("%T starts as %q", value, got)
		}
		if value.Type() == "" {
			t.Errorf("%T has no type", value)
		}
	}
}

func TestPreferences(t *testing.T) {
	var p flagvalue.Preferences
	for _, text := range []string{"spread=node.labels.zone", "spread=engine.labels.rack"} {
		if err := p.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if want := "spread=node.labels.zone, spread=engine.labels.rack"; p.String() != want {
		t.Errorf("got %q, want %q", p.String(), want)
	}
	for _, text := range []string{"", "spread=", "node.labels.zone", "pack=node.labels.zone"} {
		if err := p.Set(text); err == nil || !strings.Contains(err.Error(), "write spread= and a label") {
			t.Errorf("%q: got %v, want an error that says what to write", text, err)
		}
	}
}
