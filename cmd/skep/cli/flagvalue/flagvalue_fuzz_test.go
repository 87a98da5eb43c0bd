package flagvalue_test

import (
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

func FuzzSecret(f *testing.F) {
	for _, text := range []string{"db", "source=db,target=/x,uid=1,gid=2,mode=0400", `"a`, "=,="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var secrets flagvalue.Secrets
		if secrets.Set(text) != nil {
			return
		}
		if s := secrets[0]; s.Source == "" || s.Target == "" || s.Mode > 0o7777 {
			t.Errorf("%q became %+v", text, s)
		}
	})
}

func FuzzPort(f *testing.F) {
	for _, text := range []string{"published=8080,target=80,mode=host", "8080:80/udp", "target=1,mode=host,protocol=udp"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var ports flagvalue.Ports
		if ports.Set(text) != nil {
			return
		}
		p := ports[0]
		if p.GetTargetPort() == 0 || p.GetTargetPort() > math.MaxUint16 || p.GetPublishedPort() > math.MaxUint16 ||
			p.GetPublishMode() != api.PublishMode_PUBLISH_MODE_HOST || p.GetProtocol() == api.Protocol_PROTOCOL_UNSPECIFIED {
			t.Errorf("%q became %v", text, p)
		}
	})
}

func FuzzMount(f *testing.F) {
	f.Add("type=tmpfs,target=/t,ro,tmpfs-size=1m,tmpfs-mode=0700")
	f.Add("source=db,target=/t,volume-nocopy,volume-subpath=a/b")
	f.Add("type=bind,source=/s,target=/t,bind-propagation=rslave,bind-recursive=writable,bind-nonrecursive=false")
	f.Add("type=image,source=app:1,target=/t,image-subpath=a/b")
	f.Fuzz(func(t *testing.T, text string) {
		var mounts flagvalue.Mounts
		if mounts.Set(text) != nil {
			return
		}
		m := mounts[0]
		if m.GetType() == api.MountType_MOUNT_TYPE_UNSPECIFIED || !path.IsAbs(m.GetTarget()) || m.GetTmpfsSizeBytes() < 0 || m.GetTmpfsMode() > 0o7777 {
			t.Errorf("%q became %v", text, m)
		}
	})
}

func FuzzTmpfs(f *testing.F) {
	f.Add("/t:ro,size=1m,mode=0700,uid=1,gid=2,exec")
	f.Fuzz(func(t *testing.T, text string) {
		var mounts flagvalue.Mounts
		if (flagvalue.Tmpfs{Mounts: &mounts}).Set(text) != nil {
			return
		}
		m := mounts[0]
		if m.GetType() != api.MountType_MOUNT_TYPE_TMPFS || !path.IsAbs(m.GetTarget()) || m.GetTmpfsSizeBytes() < 0 || m.GetTmpfsMode() > 0o7777 {
			t.Errorf("%q became %v", text, m)
		}
	})
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\n# c\n\nB\n C=2")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := flagvalue.ParseEnvFile(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, line := range lines {
			if name, _, _ := strings.Cut(line, "="); name == "" || strings.ContainsAny(line, "\n\x00") || strings.ContainsAny(name, " \t") {
				t.Errorf("%q became %q", text, lines)
			}
		}
		again, err := flagvalue.ParseEnvFile(strings.NewReader(strings.Join(lines, "\n")))
		if err != nil || !slices.Equal(lines, again) {
			t.Errorf("%q does not survive: %q, %v", text, again, err)
		}
	})
}

// FuzzSplit quotes what was split, and splits it again.
func FuzzSplit(f *testing.F) {
	for _, text := range []string{`a 'b c' "d\"e" f\ g`, `''`, `\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := flagvalue.Split(text)
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, word := range words {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		again, err := flagvalue.Split(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q: %q became %q, %v", text, words, again, err)
		}
	})
}

// FuzzScalars reads sizes, decimals, addresses, filters and target ports: nothing may panic or get out of range.
func FuzzScalars(f *testing.F) {
	for _, text := range []string{"1.5g", "0.5", "1/3", "eth0:2377", "name=web", "80/udp", "[::1]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size flagvalue.Bytes
		if size.Set(text) == nil && size < 0 {
			t.Errorf("%q became %d bytes", text, size)
		}
		var cpus flagvalue.NanoCPUs
		if cpus.Set(text) == nil {
			_ = cpus.String()
		}
		var addr flagvalue.NodeAddr
		if addr.Set(text) == nil {
			if err := addr.Set(addr.String()); err != nil {
				t.Errorf("%q became %s, which is refused: %v", text, &addr, err)
			}
		}
		var filter flagvalue.Filter
		if filter.Set(text) == nil && len(filter) != 1 {
			t.Errorf("%q became %v", text, filter)
		}
		var ports flagvalue.TargetPorts
		if ports.Set(text) == nil && (ports[0].Number == 0 || ports[0].Number > math.MaxUint16) {
			t.Errorf("%q became %v", text, ports)
		}
	})
}

func FuzzHostMount(f *testing.F) {
	for _, text := range []string{"/a", "/a:ro", "/a:/b:ro", "/a:/b:rw", "a:/b", "/a::ro", "/a:ro:ro", "/a:/b:ro,rslave", "/a:rw,shared"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var mounts flagvalue.HostMounts
		if mounts.Set(text) != nil {
			return
		}
		m := mounts[0]
		if !path.IsAbs(m.GetSource()) || m.GetTarget() != "" && !path.IsAbs(m.GetTarget()) || strings.Contains(m.GetSource()+m.GetTarget(), ":") ||
			m.GetReadOnly() && !strings.Contains(text, "ro") {
			t.Errorf("%q became %v", text, m)
		}
		if last := text[strings.LastIndex(text, ":")+1:]; last == "ro" && !m.GetReadOnly() {
			t.Errorf("%q became %v", text, m)
		}
	})
}

func FuzzDevice(f *testing.F) {
	for _, text := range []string{"/dev/kvm", "/dev/kvm:r", "/dev/kvm:/dev/x:r", "kvm", "v.com/c=d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var devices flagvalue.Devices
		if devices.Set(text) != nil {
			return
		}
		if len(devices.CDI) == 1 { // whose grammar the managers know
			if devices.CDI[0] != text || path.IsAbs(text) {
				t.Errorf("%q became %v", text, devices)
			}
			return
		}
		if d := devices.Files[0]; !path.IsAbs(d.GetPath()) || strings.Contains(d.GetPath()+d.GetPermissions(), ":") {
			t.Errorf("%q became %v", text, d)
		}
	})
}

// FuzzHost: what is taken is one address and a name, and the same text takes it away again.
func FuzzHost(f *testing.F) {
	for _, text := range []string{"db:192.0.2.9", "db=::1", "db:[::1]", "a:b=1.1.1.1", "db:fe80::1%a b", "db:host-gateway"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var hosts flagvalue.Hosts
		if hosts.Set(text) != nil {
			return
		}
		address, name, _ := strings.Cut(hosts[0], " ")
		if ip, err := netip.ParseAddr(address); err != nil || ip.Zone() != "" || name == "" {
			t.Errorf("%q became %q", text, hosts[0])
		}
		var names flagvalue.HostNames
		if err := names.Set(text); err != nil || names[0].Name != name || names[0].Address != address {
			t.Errorf("%q: to be removed %v, %v", text, names, err)
		}
	})
}
