package settlepgx

import "testing"

func FuzzDecode(f *testing.F) {
	f.Add([]byte("B\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x03"))
	f.Add([]byte("C\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03"))
	f.Add([]byte("R\x00\x00\x00\x07public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x14\xff\xff\xff\xff"))
	f.Add([]byte("I\x00\x00\x00\x07N\x00\x01t\x00\x00\x00\x0212"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{tables: map[uint32]*relation{7: {name: "t", columns: []string{"id"}}}}
		m, err := d.decode(b)
		if err == nil && m.kind == 'I' {
			if v, ok := m.insert.column("id"); ok {
				_, _ = v.integer()
			}
		}
	})
}

func TestLSN(t *testing.T) {
	for _, s := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"} {
		if l, err := parseLSN(s); err != nil || l.String() != s {
			t.Errorf("%s became %s, %v", s, l, err)
		}
	}
	if l, err := parseLSN("x"); err == nil {
		t.Errorf("x became %s", l)
	}
}
