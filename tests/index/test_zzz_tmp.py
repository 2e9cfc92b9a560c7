import sys
def test_a():
    print([ (k,getattr(v,"__file__",None)) for k,v in sys.modules.items() if "conftest" in k]); print(sys.path[:3])
    try:
        from tests.conftest import absent; print("tests.conftest")
    except ImportError as e: print(e)
    try:
        from conftest import absent; print("conftest")
    except ImportError as e: print(e)
