"""Counters and Prometheus's text form."""

from gemini_poold.gateway.meter import Meter, family, labels


def test_a_histogram_is_cumulative():
    """Each bucket holds all that were quicker; the last holds everything."""
    meter = Meter()
    for took_s in (0.01, 0.02, 0.2, 1000.0):
        meter.count("gl", "2xx", took_s, bytes_in=1, bytes_out=2, first_byte_s=took_s if took_s < 1 else None)
    lines = list(meter.lines())
    assert 'gemini_pool_gateway_seconds_bucket{le="0.01"} 1' in lines
    assert 'gemini_pool_gateway_seconds_bucket{le="0.05"} 2' in lines
    assert 'gemini_pool_gateway_seconds_bucket{le="300.0"} 3' in lines
    assert 'gemini_pool_gateway_seconds_bucket{le="+Inf"} 4' in lines
    assert "gemini_pool_gateway_seconds_count 4" in lines
    assert "gemini_pool_gateway_first_byte_seconds_count 3" in lines
    assert 'gemini_pool_gateway_requests_total{surface="gl",outcome="2xx"} 4' in lines
    assert 'gemini_pool_gateway_bytes_total{direction="out"} 8' in lines


def test_label_values_are_escaped():
    """Backslash, quote and line end cannot leave their label."""
    assert labels(a='x\\y"z\n') == '{a="x\\\\y\\"z\\n"}'


def test_every_family_is_described():
    """HELP and TYPE come before the samples."""
    assert list(family("x", "gauge", "why", [("", 1)])) == [
        "# HELP gemini_pool_x why",
        "# TYPE gemini_pool_x gauge",
        "gemini_pool_x 1",
    ]
